"""Prompts about other things than the dataset: those that show what a language model forgets, and those that it is
trained on so that it forgets less."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..config import ResolvedConfig, TrainingConfig
from ..data.base import Dataset
from ..data.spread import spread
from ..data.text.rows import Turn

Prompt = tuple[Turn, ...]
"""A conversation that ends with a turn of the user."""

GENERAL = Path(__file__).parent / "unrelated_prompts.txt"
"""The file with general prompts in several languages, one per line."""

MOST_MEASURED = 40
"""The most prompts whose answers are compared before and after."""

MEASURED_SHARE = 0.4
"""The share of a list of prompts that is measured if the rest of it is trained."""


@cache
def general_prompts() -> tuple[Prompt, ...]:
    """Return the general prompts that come with the package."""
    return tuple(map(_asked, GENERAL.read_text(encoding="utf-8").splitlines()))


def _asked(text: str) -> Prompt:
    return (Turn("user", text),)


def measured_prompts(dataset: Dataset, config: ResolvedConfig) -> tuple[Prompt, ...]:
    """Return the prompts that show what the model forgets, none of which is trained."""
    return _chosen(dataset, config.regularization_rows)[0]


def trained_prompts(dataset: Dataset, config: TrainingConfig) -> tuple[Prompt, ...]:
    """Return the prompts that the base model's own answers are trained for; empty without `regularization_rows`."""
    return _chosen(dataset, config.regularization_rows)[1]


def _chosen(dataset: Dataset, is_trained: bool) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Return the prompts to measure and those to train.

    A list that has to serve for both is split.
    """
    known = tuple(map(_asked, dataset.unrelated_prompts))
    kept = dataset.regularization_prompts or general_prompts()
    if not is_trained:
        return tuple(spread(known or kept, MOST_MEASURED)), ()
    if not known:
        known = tuple(spread(kept, max(1, min(MOST_MEASURED, round(len(kept) * MEASURED_SHARE)))))
    measured = tuple(spread(known, MOST_MEASURED))
    return measured, tuple(prompt for prompt in kept if prompt not in measured)
