"""What a run writes down of every step."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .run_files import LOG
from .step_report import StepReport
from .whole_files import write_whole

log = logging.getLogger(__name__)


class RunLog:
    """A line of JSON per step in log.jsonl, and the same for TensorBoard where it is installed.

    Args:
        folder: the run's.
        steps: that the run goes on after; what it wrote of later ones is taken back.
    """

    def __init__(self, folder: Path, steps: int = 0) -> None:
        self.path = folder / LOG
        if self.path.exists():
            kept = [line for line in _lines(self.path) if json.loads(line)["step"] <= steps]
            write_whole(self.path, "".join(kept).encode(), what="The log")
        self._tensorboard: Any = _tensorboard_writer(folder, steps)

    @staticmethod
    def losses(folder: Path) -> list[float]:
        """Of each step of a run that is over."""
        return [json.loads(line)["loss"] for line in _lines(folder / LOG)]

    @staticmethod
    def errors(folder: Path) -> list[dict[str, float]]:
        """Of each step but skipped ones, the mean error in each range of the noise schedule that occurred."""
        return [step["errors"] for step in map(json.loads, _lines(folder / LOG)) if not step["skipped"]]

    def write(self, report: StepReport) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_line(report), ensure_ascii=False) + "\n")
        if self._tensorboard is not None:
            for name, value in _curves(report).items():
                self._tensorboard.add_scalar(name, value, report.step)

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def _lines(path: Path) -> list[str]:
    """Those that are whole: a killed process may have left half of its last one."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line for line in lines if line.startswith("{") and line.endswith("}\n")]


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


def _tensorboard_writer(folder: Path, steps: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # whatever another package's half-broken installation throws
        log.warning("TensorBoard is installed but cannot be loaded, so the run writes log.jsonl alone: %s", error)
        return None
    return SummaryWriter(str(folder), purge_step=steps + 1)
