"""Signals at a moment of a training, and what is left of the run when it is started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lora_crucible.formats.lora_file import read_lora
from processes import assert_whole, start_training

RUN: dict[str, Any] = {
    "base_model": "demo",
    "train_data_dir": "demo",
    "output_name": "mine",
    "lora_rank": 4,
    "max_train_steps": 6,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "save_steps": 1,
    "sample_steps": 1,
    "sample_every_n_steps": 2,
    "validation_percent": 10,
    "validate_every_n_steps": 3,
    "measure": "never",
    "save_precision": "fp32",
    "report_to": "none",
}
"""The settings of a run that spends its time in everything that a run does."""

STATUSES = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
"""How a process may end: it was done already, it saved and ended, or it had not yet begun to handle signals."""


def start(folder: Path):
    """Start the run in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({**RUN, "output_dir": str(folder / "out")}), encoding="utf-8")
    return start_training(config, folder / "output.txt")


def undisturbed(folder: Path) -> tuple[Mapping[str, torch.Tensor], float]:
    """Train without a signal; return the LoRA and the seconds that the process took."""
    started = time.monotonic()
    process = start(folder)
    assert process.wait() == 0, (folder / "output.txt").read_text()
    return read_lora(folder / "out" / "mine.safetensors")[0], time.monotonic() - started


def stopped_and_resumed(folder: Path, seconds: float, expected: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Stop the run by SIGTERM after so many seconds, start it again, and compare its LoRA with that of no signal.

    Returns:
        The exit status, what the process was doing by its last line, the seconds that it took to end, the number of
        steps that were saved, and whether the resumed run's LoRA is equal to the bit.
    """
    process = start(folder)
    time.sleep(seconds)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait()
    took = time.monotonic() - sent
    said = (folder / "output.txt").read_text()
    assert "Traceback" not in said, said
    assert_whole(folder / "out")
    before = said.partition("\nStopping after")[0].strip().splitlines()
    checkpoints = folder / "out" / "mine" / "checkpoints"
    saved = max((int(path.name.removeprefix("step_")) for path in checkpoints.glob("step_*")), default=0)
    assert start(folder).wait() == 0, (folder / "output.txt").read_text()
    lora = read_lora(folder / "out" / "mine.safetensors")[0]
    equal = lora.keys() == expected.keys() and all(torch.equal(lora[key], expected[key]) for key in expected)
    return {
        "moment": round(seconds, 2),
        "status": status,
        "doing": before[-1] if before else "",
        "seconds_to_end": round(took, 2),
        "steps_saved": saved,
        "equal": equal and not (folder / "out" / "mine_2.safetensors").exists(),
    }
