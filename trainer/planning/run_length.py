"""The choice of the effective batch size, the number of steps and the warmup."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config.facts import DatasetFacts
from ..config.output_settings import Purpose
from ..errors import CrucibleError
from ..messages.wording import counted
from .auto_values import AutoValues

EFFECTIVE_BATCH = 4
"""The batch size times gradient accumulation below which steps are noisy: gradients of fewer examples vary too much."""


@dataclass(frozen=True)
class RunLength:
    """The length that suits a kind of dataset.

    Attributes:
        effective_batch: the batch size times gradient accumulation to aim for.
        least_steps, most_steps: the range of optimizer steps at that effective batch; with a smaller one there are more
            steps, so that the same number of examples is shown.
        epochs: the number of epochs for a large dataset. A small one gets more, so that the run has `least_steps`.
    """

    effective_batch: int
    least_steps: int
    most_steps: int
    epochs: int


OF_IMAGES = RunLength(EFFECTIVE_BATCH, least_steps=500, most_steps=2000, epochs=8)
OF_TEXTS = RunLength(effective_batch=8, least_steps=150, most_steps=3000, epochs=3)

TEST_STEPS = 50
"""The number of steps in a quick test, which takes one to a few minutes on a GPU."""

MOST_WARMUP_STEPS = 100
"""The most warmup steps that are chosen automatically."""


def choose_batch(choices: AutoValues, examples: int, batch: int, reason: str, length: RunLength) -> tuple[int, int]:
    """Choose and return batch size and gradient accumulation.

    Args:
        examples: the number of training examples, which no batch exceeds.
        batch: the batch size that is likely to fit into memory, with the reason for it.
        length: the length that suits the dataset.
    """
    accumulation, wanted, unit = choices.config.gradient_accumulation_steps, length.effective_batch, choices.unit
    if accumulation is not None:
        batch = math.ceil(wanted / accumulation)
        reason = f"with gradient accumulation {accumulation}, at least {wanted} {unit}s per step"
    batch = choices.take("batch_size", batch, reason, most=examples)
    accumulation = math.ceil(wanted / batch)
    reason = f"{batch * accumulation} {unit}s per step, because training on fewer than {wanted} is noisy"
    if accumulation == 1:
        reason = f"a batch of {batch} is large enough"
    return int(batch), int(choices.take("gradient_accumulation_steps", accumulation, reason))


def batch_of_images(resolution: int | None) -> tuple[int, str]:
    """Return the number of images that fit into the memory of most devices at once, with the reason."""
    if resolution is None:
        return 1, "a single example fits into memory on most devices"
    if resolution <= 512:
        return 2, f"two images of {resolution} pixels fit into memory on most devices"
    return 1, f"images of {resolution} pixels need a lot of memory"


def choose_steps(
    choices: AutoValues, purpose: Purpose, dataset: DatasetFacts, batch: tuple[int, int], length: RunLength
) -> int:
    """Choose and return the number of optimizer steps, computed from the epochs if they are set.

    Args:
        batch: the batch size and gradient accumulation.
        length: the length that suits the dataset.
    """
    config, shown, unit = choices.config, dataset.samples_per_epoch, choices.unit
    steps_per_epoch, effective_batch = dataset.steps_per_epoch(*batch), batch[0] * batch[1]
    if config.epochs is not None:
        epochs = counted(config.epochs, "epoch")
        reason = f"{epochs} of {counted(shown, unit)} in {counted(steps_per_epoch, 'step')}"
        return int(choices.set("max_train_steps", config.epochs * steps_per_epoch, reason))
    if purpose == "quick_test" and config.max_train_steps is None:
        return int(choices.set("max_train_steps", TEST_STEPS, "enough to see whether everything works"))
    # Regularization examples teach nothing new, so their share of the steps is added.
    scale = length.effective_batch / min(effective_batch, length.effective_batch) / dataset.training_share
    least, most = math.ceil(length.least_steps * scale), math.ceil(length.most_steps * scale)
    steps, reason = length.epochs * steps_per_epoch, f"{length.epochs} epochs of {shown} {unit}s"
    if steps < least:
        steps = least
        reason = f"the minimum for a LoRA; every {unit} is shown {steps / steps_per_epoch:.0f} times"
    elif steps > most:
        steps, reason = most, f"more is rarely better; every {unit} is shown {steps / steps_per_epoch:.1f} times"
    return int(choices.take("max_train_steps", steps, reason))


def choose_warmup(choices: AutoValues, steps: int) -> None:
    """Choose the number of warmup steps.

    A number that was given stays, unless the length of the run was not: a config that counts in epochs, written for
    many examples, is to train few of them as well.

    Raises:
        CrucibleError: the warmup would last as long as a run of a given number of steps, or longer.
    """
    ratio, warmup = choices.config.lr_warmup_ratio, choices.config.lr_warmup_steps
    if warmup is not None and warmup >= steps and choices.config.max_train_steps is None:
        reason = f"{warmup} were asked for, but the run has only {steps} steps; a tenth of them is taken instead"
        choices.set("lr_warmup_steps", steps // 10, reason)
    elif warmup is not None and warmup >= steps:
        raise CrucibleError(
            f"lr_warmup_steps = {warmup}, but the run has only {steps} steps, so the learning rate would never reach "
            f"its full value. Set it to {steps // 10}, or leave it on auto."
        )
    elif warmup is None and ratio is not None:
        choices.set("lr_warmup_steps", int(ratio * steps), f"{100 * ratio:g} % of {steps} steps")
    elif warmup is None:
        longest = choices.own_values.get("lr_warmup_steps", MOST_WARMUP_STEPS)
        warmup = min(longest, steps // 10)
        reason = f"a tenth of the steps, at most {longest}" if warmup else "the run is too short for one"
        choices.set("lr_warmup_steps", warmup, reason)
