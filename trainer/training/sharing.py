"""What several processes of a run have to agree on before they share it."""

from __future__ import annotations

from dataclasses import asdict

import torch

from .. import __version__
from ..config import ResolvedConfig
from ..distributed.processes import Processes
from ..errors import CrucibleError
from ..messages.wording import counted
from ..runs.record import RunRecord


def require_same_run(record: RunRecord, processes: Processes) -> None:
    """Check that all processes would train the same run: the same base model, examples, settings and versions.

    Args:
        record: the run as this process would train it.
        processes: the processes of the run, all of which have to call this.

    Raises:
        CrucibleError: the run of some process differs from that of the main one.
    """
    versions = {"LoRA Crucible": __version__, "torch": torch.__version__}
    found = processes.gather({"record": asdict(record), "versions": versions})
    main = RunRecord(**found[0]["record"])
    for rank, one in enumerate(found):
        differences = [
            f"the version of {name} is {found[0]['versions'][name]} there and {version} here"
            for name, version in one["versions"].items()
            if found[0]["versions"][name] != version
        ]
        differences += RunRecord(**one["record"]).differences(main, "{name} is {before} there and {now} here")
        if RunRecord(**one["record"]).steps != main.steps:
            differences.append(f"max_train_steps is {main.steps} there and {one['record']['steps']} here")
        if differences:
            raise CrucibleError(
                f"{processes.name(rank).capitalize()} would train another run than {processes.name(0)}: "
                f"{'; '.join(differences)}. Their gradients would not belong together. Copy the same config file, "
                "dataset and model to every machine, install the same versions there, and start all again."
            )


def require_rows(config: ResolvedConfig, processes: Processes) -> None:
    """Check that every process has something to do.

    Raises:
        CrucibleError: a step has fewer rows than there are processes.
    """
    rows, count = config.batch_size * config.gradient_accumulation_steps, processes.count
    if rows < count:
        least = -(-count // config.batch_size)
        raise CrucibleError(
            f"{counted(count, 'process', 'processes')} were started, but the effective batch is {rows} (batch_size "
            f"{config.batch_size} x gradient_accumulation_steps {config.gradient_accumulation_steps}), so "
            f"{count - rows} of them would have nothing to compute. The number of processes does not change what is "
            f"trained, so it cannot make the batch larger by itself. Start {counted(rows, 'process', 'processes')} "
            f"(num_processes), or set gradient_accumulation_steps to {least} or more; with more rows per step, fewer "
            "steps are enough."
        )


def sharing_lines(config: ResolvedConfig, processes: Processes) -> list[str]:
    """Return the report line about how the processes shared the rows of a step; empty for a single process."""
    if processes.count == 1:
        return []
    rows, hosts = config.batch_size * config.gradient_accumulation_steps, len(set(processes.hosts))
    return [
        f"Effective batch {rows} (batch_size {config.batch_size} x gradient_accumulation_steps "
        f"{config.gradient_accumulation_steps}): shared by {processes.count} processes on "
        f"{counted(hosts, 'machine')}, about {rows / processes.count:.3g} rows each"
    ]
