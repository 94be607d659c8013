"""The training of a config on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .display import run_callbacks
from .opening import open_base_model

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset
    from ..training.result import RunResult


def _run(config: TrainingConfig, dataset: Dataset, retrain: bool, *, download: bool = False) -> RunResult:
    """Train, and show the progress; the LoRA, and a folder of the same name with everything else, go to output_dir."""
    from ..training.resume import train_or_resume
    from .interrupt import asked_to_stop

    folder = Path(config.output_dir).expanduser()
    with asked_to_stop() as check:
        base_model = open_base_model(config, check, download=download)
        callbacks = run_callbacks(check, dataset.unit)
        return train_or_resume(base_model, dataset, config, folder, folder, callbacks, retrain=retrain)


def facts_of(result: RunResult) -> dict[str, Any]:
    """Return what `--json` tells about the result of a run."""
    from ..runs.paths import REPORT

    files, verdict = result.files, result.verdict
    return {
        "name": files.name,
        "lora": str(files.lora),
        "folder": str(files.folder),
        "report": str(files.folder / REPORT),
        "steps": len(result.losses),
        "loss": result.losses[-1] if result.losses else None,
        "verdict": None if verdict is None else verdict.word,
        "reasons": [] if verdict is None else list(verdict.reasons),
        "advice": [] if verdict is None else list(verdict.advice),
    }
