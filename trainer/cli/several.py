"""The training of several configs in one call, each in a process of its own, one after the other.

A process of its own gives all memory back when it ends, and one that the system kills takes no other with it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import CrucibleError
from .display import duration_text
from .exit_status import ExitStatus, Outcome, meaning_of
from .interrupt import Stopping, forwarded_signals

RESULT = "CRUCIBLE_RESULT_FILE"
"""The variable that names the file to which a process of `train_several` writes how it ended."""


@dataclass(frozen=True)
class Trained:
    """How the training of one config ended.

    Attributes:
        config: the config file.
        status: the exit status; None if it was not started.
        seconds: how long it took.
        facts: what `--json` tells about its end; empty if the process could not write it.
    """

    config: str
    status: int | None
    seconds: float
    facts: dict[str, Any]

    @property
    def line(self) -> str:
        """The line of the summary."""
        if self.status is None:
            return f"{self.config}: not started"
        verdict = self.facts.get("verdict")
        parts = [meaning_of(self.status), f"{duration_text(self.seconds)}"]
        parts += [f"verdict: {verdict}"] if verdict else []
        parts += [str(self.facts["lora"])] if self.status == 0 and "lora" in self.facts else []
        return f"{self.config}: {', '.join(parts)}"


def train_several(configs: Sequence[str], arguments: Sequence[str], in_json: bool) -> Outcome:
    """Train each config as `train CONFIG ARGUMENTS` would. One that fails does not keep the others from being trained.

    A signal that asks to stop ends the one that is being trained, which saves its state, and no other is started.

    Args:
        configs: the config files.
        arguments: the options for each of them.
        in_json: whether they tell what they do as JSON.

    Raises:
        CrucibleError: a launcher has started several processes for this, or a config is named twice.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CrucibleError(
            f"{len(configs)} configs were given to a launcher of several processes, whose connections serve one "
            f"training only. Start one after the other: for config in {' '.join(configs)}; do accelerate launch … "
            "train $config; done.",
            "settings",
        )
    if twice := [config for config in dict.fromkeys(configs) if configs.count(config) > 1]:
        raise CrucibleError(
            f"{twice[0]} is named twice, but a config is trained once: the second time, its run would be finished "
            "already. Name each config once.",
            "settings",
        )
    trained: list[Trained] = []
    with forwarded_signals() as stopping:
        for number, config in enumerate(configs, start=1):
            if stopping.number is not None:
                trained.append(Trained(config, None, 0.0, {}))
                continue
            print(f"Config {number} of {len(configs)}: {config}", flush=True)
            more = ["--json"] if in_json else []
            trained.append(_train_one(config, [*arguments, *more], stopping))
    print("\nSummary:\n" + "\n".join(f"  {one.line}" for one in trained))
    status = 128 + stopping.number if stopping.number is not None else ExitStatus.DONE
    if not status and any(one.status for one in trained):
        status = ExitStatus.PARTLY
    runs = [{"config": one.config, "exit": one.status, "seconds": one.seconds, **one.facts} for one in trained]
    return Outcome({"runs": runs}, status)


def _train_one(config: str, arguments: Sequence[str], stopping: Stopping) -> Trained:
    command = [sys.executable, str(Path(__file__).absolute().parents[1]), "train", *arguments, "--", config]
    started = time.monotonic()
    with TemporaryDirectory(prefix="crucible-") as folder:
        result = Path(folder) / "result.json"
        status = stopping.run(command, {**os.environ, RESULT: str(result)})
        facts: dict[str, Any] = {}
        with suppress(OSError, ValueError):  # it was killed
            facts = json.loads(result.read_text(encoding="utf-8"))
    kept = ("name", "lora", "folder", "report", "verdict", "kind", "error")
    return Trained(config, status, time.monotonic() - started, {key: facts[key] for key in kept if key in facts})
