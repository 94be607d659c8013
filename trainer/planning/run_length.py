"""The choice of the effective batch size, the number of steps and the warmup."""

from __future__ import annotations

import math

from ..config.facts import DatasetFacts
from ..config.output_settings import Purpose
from ..errors import CrucibleError
from ..messages.wording import counted
from .auto_values import AutoValues

EFFECTIVE_BATCH = 4
"""The batch size times gradient accumulation to aim for; gradients of fewer images are too noisy."""

LEAST_STEPS, MOST_STEPS = 500, 2000
"""The range of optimizer steps at an effective batch size of 4; with a smaller one there are more steps, so that the
same number of images is shown."""

EPOCHS = 8
"""The number of epochs for a large dataset. A small one gets more, so that the run has at least LEAST_STEPS steps."""

TEST_STEPS = 50
"""The number of steps in a quick test, which takes one to a few minutes on a GPU."""

MOST_WARMUP_STEPS = 100
"""The most warmup steps that are chosen automatically."""


def choose_batch(choices: AutoValues, images: int, resolution: int | None) -> tuple[int, int]:
    """Choose and return batch size and gradient accumulation."""
    accumulation = choices.config.gradient_accumulation_steps
    if accumulation is not None:
        batch = math.ceil(EFFECTIVE_BATCH / accumulation)
        reason = f"with gradient accumulation {accumulation}, at least {EFFECTIVE_BATCH} images per step"
    elif resolution is None:
        batch, reason = 1, "a single example fits into memory on most devices"
    elif resolution <= 512:
        batch, reason = 2, f"two images of {resolution} pixels fit into memory on most devices"
    else:
        batch, reason = 1, f"images of {resolution} pixels need a lot of memory"
    batch = choices.take("batch_size", batch, reason, most=images)
    accumulation = math.ceil(EFFECTIVE_BATCH / batch)
    reason = f"{batch * accumulation} images per step, because training on fewer than {EFFECTIVE_BATCH} is noisy"
    if accumulation == 1:
        reason = f"a batch of {batch} is large enough"
    return int(batch), int(choices.take("gradient_accumulation_steps", accumulation, reason))


def choose_steps(
    choices: AutoValues, purpose: Purpose, dataset: DatasetFacts, batch_size: int, accumulation: int
) -> int:
    """Choose and return the number of optimizer steps, computed from the epochs if they are set."""
    config, shown, effective_batch = choices.config, dataset.samples_per_epoch, batch_size * accumulation
    steps_per_epoch = dataset.steps_per_epoch(batch_size, accumulation)
    if config.epochs is not None:
        epochs = counted(config.epochs, "epoch")
        reason = f"{epochs} of {counted(shown, 'image')} in {counted(steps_per_epoch, 'step')}"
        return int(choices.set("max_train_steps", config.epochs * steps_per_epoch, reason))
    if purpose == "quick_test" and config.max_train_steps is None:
        return int(choices.set("max_train_steps", TEST_STEPS, "enough to see whether everything works"))
    # Regularization images teach nothing new, so their share of the steps is added.
    scale = EFFECTIVE_BATCH / min(effective_batch, EFFECTIVE_BATCH) / dataset.training_share
    least, most = math.ceil(LEAST_STEPS * scale), math.ceil(MOST_STEPS * scale)
    steps, reason = EPOCHS * steps_per_epoch, f"{EPOCHS} epochs of {shown} images"
    if steps < least:
        steps = least
        reason = f"the minimum for a LoRA; every image is shown {steps / steps_per_epoch:.0f} times"
    elif steps > most:
        steps, reason = most, f"more is rarely better; every image is shown {steps / steps_per_epoch:.1f} times"
    return int(choices.take("max_train_steps", steps, reason))


def choose_warmup(choices: AutoValues, steps: int) -> None:
    """Choose the number of warmup steps.

    Raises:
        CrucibleError: the warmup would last as long as the run or longer.
    """
    ratio, warmup = choices.config.lr_warmup_ratio, choices.config.lr_warmup_steps
    if warmup is not None and warmup >= steps:
        raise CrucibleError(
            f"lr_warmup_steps = {warmup}, but the run has only {steps} steps, so the learning rate would never reach "
            f"its full value. Set it to {steps // 10}, or leave it on auto."
        )
    if warmup is None and ratio is not None:
        choices.set("lr_warmup_steps", int(ratio * steps), f"{ratio:g} of {steps} steps")
    elif warmup is None:
        longest = choices.own_values.get("lr_warmup_steps", MOST_WARMUP_STEPS)
        warmup = min(longest, steps // 10)
        reason = f"a tenth of the steps, at most {longest}" if warmup else "the run is too short for one"
        choices.set("lr_warmup_steps", warmup, reason)
