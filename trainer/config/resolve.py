"""Finds a value for every setting that was left on auto, and says why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import CrucibleError
from .optimizer_defaults import OPTIMIZER_DEFAULTS
from .optimizer_settings import ScheduleName
from .schema import TargetModules, TrainingConfig

DEMO_VALUES: dict[str, Any] = {
    "lora_rank": 8,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-3,
    "max_train_steps": 400,
    "lr_warmup_steps": 20,
    "resolution": 64,
}
"""For the demo model, far smaller than any real one. Its warmup is the longest, as MOST_WARMUP_STEPS."""

MANY_IMAGES = 100
"""From this many images on, more rank pays."""

SMALL_MODELS = frozenset({"sd15", "sd2"})
"""Architectures that take the higher of the two usual learning rates of AdamW."""

EFFECTIVE_BATCH = 4
"""Batch size times accumulation that is aimed at; the loss of single images swings too much."""

LEAST_STEPS, MOST_STEPS = 500, 2000
"""Optimizer steps at the effective batch of 4; a smaller batch gets more steps, for as many images shown."""

MOST_WARMUP_STEPS = 100

VALIDATIONS = 10
"""Measurements in a run: enough for early stopping to wait for three and still save time."""


class ResolvedConfig(TrainingConfig):
    """A config with nothing left to choose, but `mixed_precision`, which depends on the device, and the timesteps,
    which are the base model's to choose.

    The length is always in `max_train_steps` and the warmup in `lr_warmup_steps`; `epochs` and `lr_warmup_ratio` are
    None: it is a valid config itself. The betas are None for an optimizer without.
    """

    lora_rank: int
    lora_alpha: float
    target_modules: TargetModules
    batch_size: int
    gradient_accumulation_steps: int
    max_train_steps: int
    learning_rate: float
    lr_warmup_steps: int
    lr_scheduler: ScheduleName
    resolution: int
    sample_every_n_steps: int
    validate_every_n_steps: int
    sample_cfg: float


@dataclass(frozen=True)
class Resolved:
    """Settings that are complete.

    Attributes:
        values: the complete config.
        reasons: for each setting that was auto, its value and the reason for it in words.
    """

    values: ResolvedConfig
    reasons: dict[str, str]


def resolve(
    config: TrainingConfig,
    *,
    image_count: int,
    samples_per_epoch: int,
    architecture: str,
    native_resolution: int,
    sample_cfg: float,
) -> Resolved:
    """Replaces every auto value by one that fits the dataset and the model.

    Args:
        image_count: number of training images.
        samples_per_epoch: how many an epoch shows: with repeats, at all resolutions, and regularization images.
        architecture: `demo`, `sd15`, `sdxl`, …
        native_resolution: side in pixels of the images that the model was made for.
        sample_cfg: guidance scale that suits the model.

    Raises:
        CrucibleError: the warmup is as long as the run or longer.
    """
    if image_count < 1:
        raise ValueError("image_count must be at least 1")
    choices = _Choices(config, architecture)
    many = image_count >= MANY_IMAGES
    size = f"{image_count} images, {MANY_IMAGES} or more" if many else f"under {MANY_IMAGES} images"

    rank = choices.take("lora_rank", 16 if many else 8, size)
    choices.take("lora_alpha", float(rank), "the same as the rank, so that the LoRA acts at full scale")
    reason = "learned more than attention alone on the demo"
    choices.take("target_modules", "attention_and_feed_forward", reason)
    resolution = choices.take("resolution", native_resolution, "what the model was made for")
    effective_batch = _choose_batch(choices, config, image_count, resolution)
    _choose_optimization(choices, config, architecture)
    if config.train_text_encoder:
        _choose_text_encoder_rate(choices, config)

    steps_per_epoch = math.ceil(samples_per_epoch / effective_batch)
    steps = _choose_steps(choices, config, samples_per_epoch, effective_batch, steps_per_epoch)
    _choose_warmup(choices, config, steps)
    choices.take("sample_every_n_steps", max(1, steps // 4), "a quarter of the steps")
    _choose_validation(choices, config, steps)
    choices.take("sample_cfg", sample_cfg, "suits the model")
    given = config.model_dump() | {"epochs": None, "lr_warmup_ratio": None}
    values = ResolvedConfig(**given | choices.values)
    return Resolved(values, choices.reasons)


class _Choices:
    """Collects the chosen values and reasons; what the user set stays, and the demo has values of its own."""

    def __init__(self, config: TrainingConfig, architecture: str) -> None:
        self.config = config
        self.own_values = DEMO_VALUES if architecture == "demo" else {}
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def take(self, name: str, value: Any, reason: str, *, most: int | None = None) -> Any:
        given = getattr(self.config, name)
        if given is not None:
            return given
        if name in self.own_values:
            value, reason = self.own_values[name], "suits the demo model"
        if most is not None and value > most:
            value, reason = most, "all images"
        return self.set(name, value, reason)

    def set(self, name: str, value: Any, reason: str) -> Any:
        self.values[name] = value
        self.reasons[name] = f"{value:g}: {reason}" if isinstance(value, float) else f"{value}: {reason}"
        return value


def _choose_optimization(choices: _Choices, config: TrainingConfig, architecture: str) -> None:
    """Chooses what suits the optimizer."""
    defaults = OPTIMIZER_DEFAULTS[config.optimizer]
    if config.learning_rate is None:
        rate, models = (2e-4, "SD1.5") if architecture in SMALL_MODELS else (1e-4, "larger models")
        if "learning_rate" in choices.own_values:
            rate, models = choices.own_values["learning_rate"], "the demo model"
        if config.optimizer == "prodigy":
            choices.set("learning_rate", defaults.learning_rate, defaults.reason)
        else:
            rate = float(f"{rate * defaults.learning_rate:.6g}")
            choices.set("learning_rate", rate, f"{defaults.reason} on {models}")
    if defaults.betas is not None:
        for name, beta in zip(("adam_beta1", "adam_beta2"), defaults.betas, strict=True):
            choices.take(name, beta, f"usual for {defaults.title}")
    if config.optimizer == "schedule_free_adamw":
        choices.take("lr_scheduler", "constant", "schedule-free AdamW averages the weights instead")
    else:
        choices.take("lr_scheduler", "cosine", "the last steps are small, so that the loss settles")


def _choose_text_encoder_rate(choices: _Choices, config: TrainingConfig) -> None:
    rate = choices.values.get("learning_rate", config.learning_rate)
    assert rate is not None  # it was chosen just before
    if config.optimizer == "prodigy":
        choices.take("text_encoder_learning_rate", rate, "Prodigy finds one learning rate for all parts")
    else:
        choices.take("text_encoder_learning_rate", rate / 2, "half of the model's, as text encoders overfit sooner")


def _choose_batch(choices: _Choices, config: TrainingConfig, image_count: int, resolution: int) -> int:
    """Chooses batch size and accumulation; returns their product."""
    if config.gradient_accumulation_steps is not None:
        batch = math.ceil(EFFECTIVE_BATCH / config.gradient_accumulation_steps)
        reason = f"with the accumulation of {config.gradient_accumulation_steps}, {EFFECTIVE_BATCH} images a step"
    elif resolution <= 512:
        batch, reason = 2, f"two images of {resolution} pixels fit most devices"
    else:
        batch, reason = 1, f"images of {resolution} pixels need much memory"
    batch = choices.take("batch_size", batch, reason, most=image_count)
    accumulation = math.ceil(EFFECTIVE_BATCH / batch)
    reason = f"{batch * accumulation} images a step, because steps on fewer than {EFFECTIVE_BATCH} swing"
    if accumulation == 1:
        reason = f"the batch of {batch} is large enough"
    return int(batch * choices.take("gradient_accumulation_steps", accumulation, reason))


def _choose_steps(
    choices: _Choices, config: TrainingConfig, shown: int, effective_batch: int, steps_per_epoch: int
) -> int:
    """Chooses the number of optimizer steps, from the epochs where these are given."""
    if config.epochs is not None:
        reason = f"{config.epochs} epochs of {shown} images, {effective_batch} images a step"
        return int(choices.set("max_train_steps", config.epochs * steps_per_epoch, reason))
    epochs = 15 if shown < 50 else 12 if shown <= 100 else 8
    scale = EFFECTIVE_BATCH / min(effective_batch, EFFECTIVE_BATCH)
    least, most = math.ceil(LEAST_STEPS * scale), math.ceil(MOST_STEPS * scale)
    steps, reason = epochs * steps_per_epoch, f"{epochs} epochs of {shown} images"
    if steps < least:
        steps = least
        reason = f"the least that a LoRA needs; every image is shown {steps / steps_per_epoch:.0f} times"
    elif steps > most:
        steps, reason = most, "more is seldom better"
    return int(choices.take("max_train_steps", steps, reason))


def _choose_warmup(choices: _Choices, config: TrainingConfig, steps: int) -> None:
    ratio, warmup = config.lr_warmup_ratio, config.lr_warmup_steps
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


def _choose_validation(choices: _Choices, config: TrainingConfig, steps: int) -> None:
    every = math.ceil(steps / VALIDATIONS)
    if config.validation_percent:
        choices.take("validate_every_n_steps", every, f"{min(steps, VALIDATIONS)} times in the run")
    elif config.validate_every_n_steps is None:
        choices.values["validate_every_n_steps"] = every  # without validation images it means nothing
