"""What suits each purpose: how much a LoRA has to learn, and what it should not tie to its trigger word."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.facts import DatasetFacts, ModelFacts
from ..config.schema import Purpose
from .auto_values import AutoValues

FEW_IMAGES = 15
"""Under this, images are soon known by heart."""

SPARED_FROM = 30
"""Images from which on some can be spared for validation."""

SPARED_PERCENT, MOST_SPARED = 10.0, 16
"""Of the images that are kept for validation; more of them would not be measured."""


@dataclass(frozen=True)
class Preset:
    """What a purpose prefers.

    Attributes:
        ranks: (from so many images on, rank), in order.
        rank_reason: why these ranks.
        loss_weighting: of models that predict noise or velocity, with the reason.
        caption_dropout: with the reason.
    """

    ranks: tuple[tuple[int, int], ...]
    rank_reason: str
    loss_weighting: tuple[str, str]
    caption_dropout: tuple[float, str]

    def rank(self, images: int) -> int:
        return [rank for least, rank in self.ranks if images >= least][-1]


_ALL_LEVELS = ("none", "every noise level counts alike, so that fine detail such as a face is learned in full")
# Hang et al. 2023 (arXiv:2303.09556): gradients of noise levels fight each other; gamma 5 is theirs.
_BALANCED = ("min_snr", "noise levels pull less against each other, which suits a look of the whole picture")
_NO_DROPOUT = (0.0, "what is learned should answer to its captions alone")
_SOME_DROPOUT = (0.1, "shown without caption now and then, a style takes hold in any prompt")

PRESETS: dict[Purpose, Preset] = {
    "character": Preset(((0, 8), (100, 16)), "enough for faces and figures", _ALL_LEVELS, _NO_DROPOUT),
    "style": Preset(
        ((0, 12), (30, 16), (300, 32)), "a style touches everything in a picture", _BALANCED, _SOME_DROPOUT
    ),
    "object": Preset(
        ((0, 4), (15, 8), (100, 16)), "one thing, and little else, is to be learned", _ALL_LEVELS, _NO_DROPOUT
    ),
    "concept": Preset(((0, 8), (100, 16), (300, 32)), "the middle way", _BALANCED, _NO_DROPOUT),
    "quick_test": Preset(((0, 8),), "enough to see that something is learned", _ALL_LEVELS, _NO_DROPOUT),
}


def choose_purpose(choices: AutoValues, dataset: DatasetFacts) -> Purpose:
    """The purpose, which the captions speak for where the user names none."""
    purpose = choices.config.purpose
    if purpose == "auto":
        purpose, reason = dataset.taken_for
        choices.set("purpose", purpose, reason)
    return purpose


def choose_adapter(choices: AutoValues, purpose: Purpose, images: int) -> None:
    """Rank, alpha and layers."""
    preset = PRESETS[purpose]
    reason = f"{preset.rank_reason}, with {_images(images)}" if len(preset.ranks) > 1 else preset.rank_reason
    rank = choices.take("lora_rank", preset.rank(images), reason)
    if choices.config.algorithm == "rslora":
        choices.take(
            "lora_alpha", rank / 2, "half the rank, because rslora divides by the square root of the rank only"
        )
    elif images < FEW_IMAGES:
        choices.take(
            "lora_alpha", rank / 2, f"half the rank: gentler, because {_images(images)} are soon known by heart"
        )
    else:
        choices.take("lora_alpha", float(rank), "the same as the rank, so that the LoRA acts at full scale")
    choices.take("target_modules", "attention_and_feed_forward", "learned more than attention alone on the demo")


def choose_objective(choices: AutoValues, purpose: Purpose, model: ModelFacts) -> None:
    """What noise levels and captions count."""
    preset = PRESETS[purpose]
    if model.prediction_type == "flow":
        choices.take("loss_weighting", "none", "flow models choose by their timesteps instead")
    else:
        choices.take("loss_weighting", *preset.loss_weighting)
    choices.take("caption_dropout_rate", *preset.caption_dropout)
    if choices.config.timestep_sampling == "auto":
        flow = model.prediction_type == "flow"
        reason = "usual for flow models" if flow else f"usual for models that predict {model.prediction_type}"
        choices.set("timestep_sampling", "logit_normal" if flow else "uniform", reason)


def choose_validation_percent(choices: AutoValues, images: int) -> float:
    """How many of `images`, trained and kept ones together, are kept for validation."""
    if choices.config.purpose == "quick_test":
        percent, reason = 0.0, "a test run needs none"
    elif images < SPARED_FROM:
        percent, reason = 0.0, f"{_images(images)} are too few to spare any; {SPARED_FROM} would do"
    else:
        percent = min(SPARED_PERCENT, round(100 * MOST_SPARED / images, 1))
        reason = f"of {_images(images)} some can be spared to measure the training by"
    return float(choices.take("validation_percent", percent, reason))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
