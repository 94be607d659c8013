"""Tests of the plot of a run."""

from __future__ import annotations

import numpy as np
from lora_crucible.evaluation.validation import Round
from lora_crucible.events.step import StepReport
from lora_crucible.runs.log import RunLog
from lora_crucible.runs.plots import save_training_plot, smoothed
from PIL import Image


def test_smoothing_keeps_a_level_and_calms_swings():
    assert smoothed([0.5] * 5) == [0.5] * 5
    calm = smoothed([0.0, 1.0] * 50)
    assert max(calm[40:]) - min(calm[40:]) < 0.1


def test_the_picture_shows_the_losses_of_the_log(tmp_path):
    def picture(name: str, losses: list[float], rounds: tuple[Round, ...] = ()) -> np.ndarray:
        folder = tmp_path / name
        folder.mkdir()
        log = RunLog(folder, "image")
        for step, loss in enumerate(losses, start=1):
            log.write(StepReport(step, loss, (), {"model": 1e-4, "text encoder": 5e-5}, 1.0, 0.1, 1.0))
        save_training_plot(log.path, folder / "loss.png", "image", rounds)
        return np.asarray(Image.open(folder / "loss.png").convert("RGB"))

    falling, rising = picture("falling", [1.0, 0.5, 0.2]), picture("rising", [0.2, 0.5, 1.0])
    assert falling.shape == rising.shape
    assert (falling != rising).any()
    assert len(np.unique(falling.reshape(-1, 3), axis=0)) > 10
    with_rounds = picture("with rounds", [1.0, 0.5, 0.2], (Round(0, 0, 0.9, 0.8), Round(3, 3e-4, 0.3, 0.4)))
    red = (with_rounds == (214, 39, 40)).all(axis=-1)
    assert red.any()
    assert not (falling == (214, 39, 40)).all(axis=-1).any()
