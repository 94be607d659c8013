"""The choice of a value, with the reason for it, for every setting that was left on auto."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config.facts import DatasetFacts, ModelFacts
from ..config.optimizer_defaults import OPTIMIZER_DEFAULTS
from ..config.output_settings import Purpose
from ..config.resolved import ResolvedConfig
from ..config.schema import TrainingConfig
from ..messages.wording import counted
from .auto_values import DEMO_VALUES, AutoValues
from .presets import (
    choose_adapter,
    choose_objective,
    choose_purpose,
    choose_validation_percent,
)
from .run_length import OF_IMAGES, OF_TEXTS, batch_of_images, choose_batch, choose_steps, choose_warmup
from .text_presets import choose_for_texts, usual_text_rate

SMALL_MODELS = frozenset({"sd15", "sd2", "sd2_v"})
"""Architectures that get the higher of the two usual learning rates for AdamW."""

TEST_RATE = 2
"""The factor on the learning rate of a quick test, so that its few steps have a visible effect."""

VALIDATIONS = 10
"""The number of validation measurements in a run: enough for early stopping to wait for three and still save time."""


@dataclass(frozen=True)
class Resolved:
    """A complete config, with the reasons for the values that were chosen.

    Attributes:
        values: the complete config.
        reasons: the chosen value and the reason for it, for each setting that was on auto.
    """

    values: ResolvedConfig
    reasons: dict[str, str]


def resolve(config: TrainingConfig, dataset: DatasetFacts, model: ModelFacts) -> Resolved:
    """Replace every auto value with one that suits the purpose, the dataset and the model.

    Raises:
        CrucibleError: the warmup would last as long as the run or longer.
        ValueError: the dataset has no training examples.
    """
    if dataset.examples < 1:
        raise ValueError("the dataset has no training examples")
    choices = AutoValues(config, model.architecture, dataset.unit)
    if model.is_language:
        purpose, length = config.purpose, OF_TEXTS
        batch = choose_for_texts(choices, dataset, model)
    else:
        purpose, length = choose_purpose(choices, dataset), OF_IMAGES
        batch = _choose_for_images(choices, purpose, dataset, model)
    percent = choose_validation_percent(choices, dataset.examples + dataset.validation)
    _choose_optimization(choices, purpose, model)

    steps = choose_steps(choices, purpose, dataset, batch, length)
    choose_warmup(choices, steps)
    if config.save_every_n_epochs:
        per_epoch = dataset.steps_per_epoch(*batch)
        epochs = counted(config.save_every_n_epochs, "epoch")
        choices.set("save_steps", config.save_every_n_epochs * per_epoch, f"{epochs} of {counted(per_epoch, 'step')}")
    if purpose == "quick_test":
        choices.take("sample_every_n_steps", steps, "only before and after the quick test")
        if config.measure == "auto":
            choices.set("measure", "never", "the LoRA of a quick test is not meant for use")
    else:
        choices.take("sample_every_n_steps", max(1, steps // 4), "a quarter of the steps")
    _choose_validation(choices, percent, steps)
    given = config.model_dump() | {"epochs": None, "lr_warmup_ratio": None, "save_every_n_epochs": 0}
    values = ResolvedConfig(**given | choices.values)
    return Resolved(values, choices.reasons)


def _choose_for_images(
    choices: AutoValues, purpose: Purpose, dataset: DatasetFacts, model: ModelFacts
) -> tuple[int, int]:
    """Choose the adapter, the resolution, the objective and the batch; return batch size and gradient accumulation."""
    choose_adapter(choices, purpose, dataset.examples)
    resolution = choices.config.resolution
    if model.native_resolution is not None:
        resolution = choices.take("resolution", model.native_resolution, "the resolution that the model was made for")
    choose_objective(choices, purpose, model)
    choices.take("sample_cfg", model.sample_cfg, "suits the model")
    return choose_batch(choices, dataset.examples, *batch_of_images(resolution), OF_IMAGES)


def usual_learning_rate(config: TrainingConfig, model: ModelFacts) -> tuple[float, str]:
    """Return the usual learning rate for the optimizer and the model, with the reason."""
    defaults = OPTIMIZER_DEFAULTS[config.optimizer]
    if config.optimizer == "prodigy":
        return defaults.learning_rate, defaults.reason
    rate, models = (2e-4, "SD1.5") if model.architecture in SMALL_MODELS else (1e-4, "larger models")
    if model.is_language:
        rate, models = usual_text_rate(model)
    elif model.architecture == "demo":
        rate, models = DEMO_VALUES["learning_rate"], "the demo model"
    return float(f"{rate * defaults.learning_rate:.6g}"), f"{defaults.reason} on {models}"


def _choose_optimization(choices: AutoValues, purpose: Purpose, model: ModelFacts) -> None:
    """Choose the learning rates, betas and schedule that suit the optimizer."""
    config = choices.config
    defaults = OPTIMIZER_DEFAULTS[config.optimizer]
    if config.learning_rate is None:
        rate, reason = usual_learning_rate(config, model)
        if purpose == "quick_test" and config.optimizer != "prodigy":
            rate, reason = TEST_RATE * rate, f"{TEST_RATE} times the usual rate ({reason}), for a visible effect"
        choices.set("learning_rate", rate, reason)
    if config.train_text_encoder:
        _choose_text_encoder_rate(choices)
    if defaults.betas is not None:
        for name, beta in zip(("adam_beta1", "adam_beta2"), defaults.betas, strict=True):
            choices.take(name, beta, f"usual for {defaults.title}")
    if config.optimizer == "schedule_free_adamw":
        choices.take("lr_scheduler", "constant", "schedule-free AdamW averages the weights instead")
    else:
        choices.take("lr_scheduler", "cosine", "small steps at the end let the loss settle")


def _choose_text_encoder_rate(choices: AutoValues) -> None:
    rate = choices.value("learning_rate")
    if choices.config.optimizer == "prodigy":
        choices.take("text_encoder_learning_rate", rate, "Prodigy finds one learning rate for all parts")
    else:
        choices.take("text_encoder_learning_rate", rate / 2, "half of the model's, since text encoders overfit sooner")


def _choose_validation(choices: AutoValues, percent: float, steps: int) -> None:
    every = math.ceil(steps / VALIDATIONS)
    if percent:
        choices.take("validate_every_n_steps", every, f"{min(steps, VALIDATIONS)} times during the run")
    elif choices.config.validate_every_n_steps is None:
        choices.values["validate_every_n_steps"] = every  # has no effect without held-out examples
