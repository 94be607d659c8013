"""What a run writes down of every step."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .step_report import StepReport

log = logging.getLogger(__name__)


class RunLog:
    """A line of JSON per step in log.jsonl, and the same for TensorBoard where it is installed.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"
        self._tensorboard: Any = _tensorboard_writer(folder)

    def write(self, report: StepReport) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_line(report), ensure_ascii=False) + "\n")
        if self._tensorboard is not None:
            for name, value in _curves(report).items():
                self._tensorboard.add_scalar(name, value, report.step)

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def _line(report: StepReport) -> dict[str, Any]:
    values = asdict(report)
    del values["rows"]
    return values | {"errors": report.errors, "images": [row.name for row in report.rows]}


def _curves(report: StepReport) -> dict[str, float]:
    """The numbers of a step, by the name of their curve."""
    return {
        "loss": report.loss,
        "gradient_norm": report.gradient_norm,
        "seconds": report.seconds,
        "memory_gb": report.memory_gb,
        **{f"error/{name}": value for name, value in report.errors.items()},
        **{f"learning_rate/{name}": value for name, value in report.learning_rates.items()},
    }


def _tensorboard_writer(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # whatever another package's half-broken installation throws
        log.warning("TensorBoard is installed but cannot be loaded, so the run writes log.jsonl alone: %s", error)
        return None
    return SummaryWriter(str(folder))
