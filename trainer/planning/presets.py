"""The settings that suit each purpose: how much a LoRA has to learn, and how closely it follows its captions."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.facts import DatasetFacts, ModelFacts
from ..config.output_settings import Purpose
from ..messages.wording import counted
from .auto_values import AutoValues

FEW_IMAGES = 15
"""With fewer images than this, a LoRA soon memorises them."""

SPARED_FROM = 30
"""The number of images or rows from which some can be held out for validation."""

SPARED_PERCENT, MOST_SPARED = 10.0, 16
"""The percentage of examples to hold out for validation, and their highest number; more would not be measured."""


@dataclass(frozen=True)
class Preset:
    """The settings that suit a purpose.

    Attributes:
        ranks: pairs of the least number of images and the rank used from there on, in ascending order.
        rank_reason: why these ranks suit the purpose.
        loss_weighting: the weighting for models that predict noise or velocity, with the reason.
        caption_dropout: the caption dropout rate, with the reason.
    """

    ranks: tuple[tuple[int, int], ...]
    rank_reason: str
    loss_weighting: tuple[str, str]
    caption_dropout: tuple[float, str]

    def rank(self, images: int) -> int:
        """Return the rank for a number of images."""
        return [rank for least, rank in self.ranks if images >= least][-1]


_ALL_LEVELS = ("none", "every noise level counts equally, so that fine detail such as a face is learned in full")
# Hang et al. 2023 (arXiv:2303.09556): gradients of different noise levels conflict; gamma 5 is the paper's value.
_BALANCED = ("min_snr", "noise levels conflict less, which suits the look of a whole image")
_NO_DROPOUT = (0.0, "what is learned should respond only to its captions")
_SOME_DROPOUT = (0.1, "trained without captions now and then, a style works in any prompt")

PRESETS: dict[Purpose, Preset] = {
    "character": Preset(((0, 8), (100, 16)), "enough for a face or a figure", _ALL_LEVELS, _NO_DROPOUT),
    "style": Preset(((0, 12), (30, 16), (300, 32)), "a style affects the whole image", _BALANCED, _SOME_DROPOUT),
    "object": Preset(
        ((0, 4), (15, 8), (100, 16)), "there is little more than one thing to learn", _ALL_LEVELS, _NO_DROPOUT
    ),
    "concept": Preset(((0, 8), (100, 16), (300, 32)), "a middle course", _BALANCED, _NO_DROPOUT),
    "quick_test": Preset(((0, 8),), "enough to show that something is learned", _ALL_LEVELS, _NO_DROPOUT),
}


def choose_purpose(choices: AutoValues, dataset: DatasetFacts) -> Purpose:
    """Return the purpose, choosing the one that the captions suggest if the user named none."""
    purpose = choices.config.purpose
    if purpose == "auto":
        purpose, reason = dataset.taken_for
        choices.set("purpose", purpose, reason)
    return purpose


def choose_adapter(choices: AutoValues, purpose: Purpose, images: int) -> None:
    """Choose rank, alpha, dropout and target layers."""
    preset = PRESETS[purpose]
    counted_images = counted(images, choices.unit)
    reason = f"{preset.rank_reason} ({counted_images})" if len(preset.ranks) > 1 else preset.rank_reason
    rank = choices.take("lora_rank", preset.rank(images), reason)
    if choices.config.algorithm == "rslora":
        choices.take(
            "lora_alpha", rank / 2, "half the rank, because rslora divides by only the square root of the rank"
        )
    elif images < FEW_IMAGES:
        choices.take(
            "lora_alpha", rank / 2, f"half the rank: gentler, because {counted_images} can be memorised quickly"
        )
    else:
        choices.take("lora_alpha", float(rank), "the same as the rank, so that the LoRA acts at full strength")
    choices.take_dropout(0.0, "early stopping and few steps prevent overfitting better")
    choices.take("target_modules", "attention_and_feed_forward", "learned more than attention alone on the demo model")


def choose_objective(choices: AutoValues, purpose: Purpose, model: ModelFacts) -> None:
    """Choose loss weighting, caption dropout and timestep sampling; without a reason for a model without noise."""
    preset = PRESETS[purpose]
    if not model.prediction_type:
        choices.values |= {"loss_weighting": "none", "caption_dropout_rate": 0.0}
        return
    if model.prediction_type == "flow":
        choices.take("loss_weighting", "none", "flow models use timestep sampling for this instead")
    else:
        choices.take("loss_weighting", *preset.loss_weighting)
    choices.take("caption_dropout_rate", *preset.caption_dropout)
    if choices.config.timestep_sampling == "auto":
        flow = model.prediction_type == "flow"
        reason = "usual for flow models" if flow else f"usual for models that predict {model.prediction_type}"
        choices.set("timestep_sampling", "logit_normal" if flow else "uniform", reason)


def choose_validation_percent(choices: AutoValues, examples: int) -> float:
    """Choose and return the percentage of images or rows to hold out for validation.

    Args:
        examples: the number of training and validation examples together.
    """
    available = counted(examples, choices.unit)
    if choices.config.purpose == "quick_test":
        percent, reason = 0.0, "a quick test needs none"
    elif examples < SPARED_FROM:
        percent, reason = 0.0, f"with {available} there are none to spare; {SPARED_FROM} would be enough"
    else:
        percent = min(SPARED_PERCENT, round(100 * MOST_SPARED / examples, 1))
        reason = f"{available} are enough to hold some out"
    return float(choices.take("validation_percent", percent, reason))
