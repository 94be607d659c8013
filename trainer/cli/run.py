"""The training of a config on the command line, with a progress bar."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from .opening import open_base_model

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config import TrainingConfig
    from ..data.base import Dataset
    from ..events.step import StepReport
    from ..training.result import RunResult

SAMPLE_SHOWN = 200
"""The most characters of a sample answer that are shown while training; all of it is in a file."""


def _run(config: TrainingConfig, dataset: Dataset, retrain: bool, *, download: bool = False) -> RunResult:
    """Train with a progress bar; the LoRA, and a folder of the same name with everything else, go to output_dir."""
    from tqdm import tqdm

    from ..events.callbacks import Callbacks
    from ..training.resume import train_or_resume
    from .interrupt import asked_to_stop

    folder = Path(config.output_dir).expanduser()
    with asked_to_stop() as check, tqdm(total=1, desc="Encoding", unit=dataset.unit, dynamic_ncols=True) as bar:
        base_model = open_base_model(config, check, download=download)

        def preparing(done: int, total: int, _: str) -> None:
            check()
            bar.total, bar.n = total, done
            bar.refresh()

        def stepped(report: StepReport, steps: int) -> None:
            if bar.unit != "step":
                bar.unit, bar.initial = "step", report.step - 1
                bar.set_description("Training", refresh=False)
                bar.reset(total=steps)
                bar.n = report.step - 1
            bar.set_postfix(loss=f"{report.loss:.3f}", refresh=False)
            bar.update()

        def sampled(step: int, steps: int, samples: Image | tuple[str, ...]) -> None:
            if isinstance(samples, tuple) and samples:
                bar.write(f"Sample after step {step} of {steps}: {shorten(samples[-1], SAMPLE_SHOWN, placeholder='…')}")

        return train_or_resume(
            base_model, dataset, config, folder, folder, Callbacks(preparing, stepped, sampled), retrain=retrain
        )
