"""A program that trains on the demo model and gets only little memory from the second step on.

    python -m tests.faults.limited_memory FOLDER

Run it with MALLOC_MMAP_THRESHOLD_ set, so that freed memory is returned to the system immediately.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from trainer.config import parse_config
from trainer.config.data_settings import DataSettings
from trainer.data.images.load import load_dataset
from trainer.events.callbacks import Callbacks
from trainer.models.diffusers.model import DiffusersBaseModel
from trainer.training.resume import train_or_resume

SETTINGS = {
    "max_train_steps": 3,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "lr_warmup_steps": 0,
    "sample_prompts": "crux",
    "sample_steps": 1,
    "sample_every_n_steps": 99,
    "measure": "never",
    "mixed_precision": "fp32",
}

ENOUGH_FOR_SOME = 185_000_000
"""Additional bytes of memory: enough for four of the images at a time, but not for eight."""


def limit_after_the_first_step(report, steps) -> None:
    if report.step == 1:
        held = int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (held + ENOUGH_FOR_SOME, resource.RLIM_INFINITY))
    if report.step == 3:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    dataset = load_dataset(DataSettings(train_data_dir="demo", resolution=192, allow_upscaling=True))
    hooks = Callbacks(stepped=limit_after_the_first_step)
    print(train_or_resume(DiffusersBaseModel("demo"), dataset, parse_config(SETTINGS), folder, folder, hooks).report)
