"""Advice on what to change before a LoRA is trained again."""

from __future__ import annotations

from ..config import ResolvedConfig
from ..planning.run_length import EFFECTIVE_BATCH
from .evidence import Evidence

ENOUGH_EXAMPLES = 30
"""The number of examples below which more of them are advised against memorising."""


def against_memorising(evidence: Evidence) -> list[str]:
    """Return advice for a run that memorised its training examples."""
    config = evidence.config
    advice = []
    if config.lora_dropout < 0.1:
        advice.append("Set lora_dropout to 0.1.")
    if evidence.examples < ENOUGH_EXAMPLES:
        advice.append(
            f"Add {evidence.unit}s that differ from each other: there are {evidence.examples}, and {ENOUGH_EXAMPLES} "
            "would help."
        )
    return advice or [f"Lower lora_rank to {max(1, config.lora_rank // 2)}."]


def longer(evidence: Evidence, how_long: str, rate: float) -> str:
    """Return the advice to train for so long or, unless the error swung or the model forgets, at a higher learning
    rate."""
    more = "" if evidence.swing or evidence.forgets else f", or raise learning_rate to {rate:g}"
    return f"Train for {how_long}{more}."


def against_standstill(evidence: Evidence) -> list[str]:
    """Return advice for a run that learned nothing."""
    config = evidence.config
    if config.learning_rate < evidence.usual_rate:
        return [longer(evidence, "longer", evidence.usual_rate)]
    more = [f"Raise lora_rank to {config.lora_rank * 2}"]
    if config.target_modules == "attention":
        more.append("set target_modules to attention_and_feed_forward")
    advice = [f"{', or '.join(more)}."]
    return [*advice, "Check whether the captions describe what is in the images."] if evidence.has_captions else advice


def against_swings(config: ResolvedConfig, unit: str) -> str:
    """Return advice for a run whose error swung.

    Args:
        config: the settings of the run.
        unit: the word for an example in the singular.
    """
    if config.batch_size * config.gradient_accumulation_steps >= EFFECTIVE_BATCH:
        return f"Lower learning_rate to {config.learning_rate / 2:g}."
    accumulation = -(-EFFECTIVE_BATCH // config.batch_size)
    return f"Set gradient_accumulation_steps to {accumulation}: steps on fewer than {EFFECTIVE_BATCH} {unit}s swing."
