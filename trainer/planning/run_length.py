"""How many images a step averages, and how many steps a run has."""

from __future__ import annotations

import math

from ..config.facts import DatasetFacts
from ..config.schema import Purpose
from ..errors import CrucibleError
from .auto_values import AutoValues

EFFECTIVE_BATCH = 4
"""Batch size times accumulation that is aimed at; the loss of single images swings too much."""

LEAST_STEPS, MOST_STEPS = 500, 2000
"""Optimizer steps at the effective batch of 4; a smaller batch gets more steps, for as many images shown."""

EPOCHS = 8
"""Of many images. Few are shown more often, so that the run has its least number of steps."""

TEST_STEPS = 50
"""Of a quick test: a minute or a few on a GPU."""

MOST_WARMUP_STEPS = 100


def choose_batch(choices: AutoValues, images: int, resolution: int) -> int:
    """Chooses batch size and accumulation; returns their product."""
    accumulation = choices.config.gradient_accumulation_steps
    if accumulation is not None:
        batch = math.ceil(EFFECTIVE_BATCH / accumulation)
        reason = f"with the accumulation of {accumulation}, {EFFECTIVE_BATCH} images a step"
    elif resolution <= 512:
        batch, reason = 2, f"two images of {resolution} pixels fit most devices"
    else:
        batch, reason = 1, f"images of {resolution} pixels need much memory"
    batch = choices.take("batch_size", batch, reason, most=images)
    accumulation = math.ceil(EFFECTIVE_BATCH / batch)
    reason = f"{batch * accumulation} images a step, because steps on fewer than {EFFECTIVE_BATCH} swing"
    if accumulation == 1:
        reason = f"the batch of {batch} is large enough"
    return int(batch * choices.take("gradient_accumulation_steps", accumulation, reason))


def choose_steps(choices: AutoValues, purpose: Purpose, dataset: DatasetFacts, effective_batch: int) -> int:
    """Chooses the number of optimizer steps, from the epochs where these are given."""
    config, shown = choices.config, dataset.samples_per_epoch
    steps_per_epoch = math.ceil(shown / effective_batch)
    if config.epochs is not None:
        reason = f"{config.epochs} epochs of {shown} images, {effective_batch} images a step"
        return int(choices.set("max_train_steps", config.epochs * steps_per_epoch, reason))
    if purpose == "quick_test" and config.max_train_steps is None:
        return int(choices.set("max_train_steps", TEST_STEPS, "enough to see whether everything works"))
    # Regularization images come on top of what is to be learned.
    scale = EFFECTIVE_BATCH / min(effective_batch, EFFECTIVE_BATCH) / dataset.training_share
    least, most = math.ceil(LEAST_STEPS * scale), math.ceil(MOST_STEPS * scale)
    steps, reason = EPOCHS * steps_per_epoch, f"{EPOCHS} epochs of {shown} images"
    if steps < least:
        steps = least
        reason = f"the least that a LoRA needs; every image is shown {steps / steps_per_epoch:.0f} times"
    elif steps > most:
        steps, reason = most, f"more is seldom better; every image is shown {steps / steps_per_epoch:.1f} times"
    return int(choices.take("max_train_steps", steps, reason))


def choose_warmup(choices: AutoValues, steps: int) -> None:
    """
    Raises:
        CrucibleError: the warmup is as long as the run or longer.
    """
    ratio, warmup = choices.config.lr_warmup_ratio, choices.config.lr_warmup_steps
    if warmup is not None and warmup >= steps:
        raise CrucibleError(
            f"lr_warmup_steps = {warmup}, but the run has only {steps} steps, so the learning rate would never reach "
            f"its value. Set it to {steps // 10} or so, or leave it on auto."
        )
    if warmup is None and ratio is not None:
        choices.set("lr_warmup_steps", int(ratio * steps), f"{ratio:g} of {steps} steps")
    elif warmup is None:
        longest = choices.own_values.get("lr_warmup_steps", MOST_WARMUP_STEPS)
        warmup = min(longest, steps // 10)
        reason = f"a tenth of the steps, at most {longest}" if warmup else "the run is short"
        choices.set("lr_warmup_steps", warmup, reason)
