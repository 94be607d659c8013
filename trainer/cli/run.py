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
    """Train with a progress bar; the LoRA, and a folder of the same name with everything else, go to output_dir."""
    from tqdm import tqdm

    from ..distributed.processes import current
    from ..events.callbacks import Callbacks
    from ..training.resume import train_or_resume
    from .interrupt import asked_to_stop

    folder = Path(config.output_dir).expanduser()
    quiet = not current().is_main
    with (
        asked_to_stop() as check,
        tqdm(total=1, desc="Encoding", unit=dataset.unit, dynamic_ncols=True, disable=quiet) as bar,
    ):
        base_model = open_base_model(config, check, download=download)
        callbacks = run_callbacks(check, dataset.unit)
        return train_or_resume(base_model, dataset, config, folder, folder, callbacks, retrain=retrain)


def facts_of(result: RunResult) -> dict[str, Any]:
    """Return what `--json` tells about the result of a run."""
    from ..runs.paths import REPORT

        def sampled(step: int, steps: int, samples: Image | tuple[str, ...]) -> None:
            if isinstance(samples, tuple) and samples:
                bar.write(f"Sample after step {step} of {steps}: {shorten(samples[-1], SAMPLE_SHOWN, placeholder='…')}")

        # Of several processes, only the main one shows anything.
        callbacks = Callbacks(lambda *_: check()) if quiet else Callbacks(preparing, stepped, sampled)
        return train_or_resume(base_model, dataset, config, folder, folder, callbacks, retrain=retrain)
