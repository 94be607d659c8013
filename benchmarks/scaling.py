"""Measure two processes against one: the time of a step with fixed work for each, and the encoding of a dataset.

    <python with the pack's standalone packages> benchmarks/scaling.py [step ...] [cache ...] [--output FILE.json]

`step`: the median time of a step of two processes with 4 rows each, and of one process with 4 rows, on the demo model.
What is added is the exchange of the gradients and the waiting for the slower of the two. It should be below 15 %.

`cache`: the seconds in which 2,000 images are encoded into an empty cache by two processes, and by one. Two should be
at least 1.7 times as fast.

Every process has one thread. They alternate, one after two, so that a machine that becomes slower meanwhile slows down
both. On two idle cores, all of it takes about five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared import circumstances, load_trainer, save

JOBS = ("step", "cache")
ROWS = 4
"""The rows of a step that each process computes."""

SIDE = 128
"""The side of the images that are encoded, in pixels."""


def measure(job: str, processes: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run a job in several processes on this machine, and return what the first one found."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    result = folder / f"{job}.json"
    arguments = [job, "--steps", str(options.steps), "--images", str(options.images)]
    started = []
    for rank in range(processes):
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        variables |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "ACCELERATE_USE_CPU": "true"}
        command = [sys.executable, __file__, *arguments, "--work_in", str(folder)]
        started.append(subprocess.Popen(command, env={**os.environ, **variables}))
    if {process.wait() for process in started} != {0}:
        raise SystemExit(f"A process of the job {job} failed; its error is above.")
    found_result: dict[str, Any] = json.loads(result.read_text())
    return found_result


def work(job: str, options: argparse.Namespace) -> None:
    """Do the part of this process in a job; the main one writes what it measured."""
    load_trainer()
    import torch
    from lora_crucible.distributed.joined import joined

    torch.set_num_threads(1)
    with joined() as processes:
        found = step(options.steps) if job == "step" else cache(options.work_in)
        if processes.is_main:
            (options.work_in / f"{job}.json").write_text(json.dumps(found))


def step(steps: int) -> dict[str, Any]:
    """Train on the demo model, and return the median time of a step in seconds."""
    from lora_crucible.config import parse_config
    from lora_crucible.data.images.load import load_dataset
    from lora_crucible.distributed.processes import current
    from lora_crucible.events.callbacks import Callbacks
    from lora_crucible.models.diffusers.model import DiffusersBaseModel
    from lora_crucible.training.resume import train_or_resume

    count = current().count
    settings = {
        "base_model": "demo",
        "train_data_dir": "demo",
        "batch_size": ROWS,
        "gradient_accumulation_steps": count,
        "max_train_steps": steps,
        "sample_steps": 1,
        "sample_every_n_steps": 10**6,
        "measure": "never",
        "validation_percent": 0,
        "downweight_hard_images": False,
    }
    config = parse_config(settings)
    seconds: list[float] = []

    def stepped(report: Any, _: int) -> None:
        if len(report.rows) == ROWS * count:  # the last of a pass over the images may have fewer
            seconds.append(report.seconds)

    folder = Path(current().from_main(tempfile.mkdtemp()))
    base_model = DiffusersBaseModel("demo")
    train_or_resume(base_model, load_dataset(config.data), config, folder, folder, Callbacks(stepped=stepped))
    return {"seconds": statistics.median(seconds[5:]), "steps": len(seconds) - 5, "rows": ROWS * count}


def cache(folder: Path) -> dict[str, Any]:
    """Encode the images of a folder into an empty cache, and return the seconds that it took."""
    import torch
    from lora_crucible.config import DataSettings
    from lora_crucible.data.cache import TensorCache
    from lora_crucible.data.images.load import load_dataset
    from lora_crucible.distributed.processes import current
    from lora_crucible.models.diffusers.model import DiffusersBaseModel

    processes = current()
    settings = DataSettings(train_data_dir=str(folder / "images"), resolution=SIDE)
    dataset = processes.first_per_machine(lambda: load_dataset(settings, facts_folder=folder / "facts"))
    base_model = DiffusersBaseModel("demo")
    entries = TensorCache(Path(processes.from_main(tempfile.mkdtemp(dir=folder))))
    with base_model.session("fp32"), torch.no_grad():
        processes.gather(None)  # both begin at the same time
        begun = time.perf_counter()
        base_model.cache_inputs(dataset.examples(SIDE), entries, 0.0, True, lambda *_: None)
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "entries": entries.made}


def make_images(folder: Path, count: int) -> None:
    """Write images with a caption each: smooth colours, so that they decode as photographs do."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((SIDE * 2, SIDE * 2), Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=90)
        (folder / f"{number:05}.txt").write_text(f"crux, picture {number % 50}")


def compare(job: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure a job with one process and with two, as often as `rounds` says."""
    rounds: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
    for number in range(options.rounds):
        for count, name in ((1, "one"), (2, "two")):
            rounds[name].append(measure(job, count, options, folder))
            print(f"{job}, round {number + 1}, {name}: {rounds[name][-1]}", flush=True)
    one, two = (min(each["seconds"] for each in rounds[name]) for name in ("one", "two"))
    found: dict[str, Any] = {"rounds": rounds, "least_seconds": {"one": one, "two": two}}
    if job == "step":
        found["longer_by"] = two / one - 1
        print(f"A step of two processes with {ROWS} rows each takes {two / one - 1:+.1%} (wanted: at most +15 %).")
    else:
        found["times_as_fast"] = one / two
        print(f"Two processes encode {one / two:.2f} times as fast as one (wanted: at least 1.7).")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", choices=[*JOBS, "all"], default="all")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work_in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.jobs == "all":
        options.jobs = list(JOBS)
    if options.work_in is not None:
        work(options.jobs[0], options)
        return
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = circumstances() | {"images": options.images, "steps": options.steps}
    with tempfile.TemporaryDirectory() as name:
        if "cache" in options.jobs:
            make_images(Path(name) / "images", options.images)
        for job in options.jobs:
            result[job] = compare(job, options, Path(name))
            save(result, options.output)


if __name__ == "__main__":
    main()
