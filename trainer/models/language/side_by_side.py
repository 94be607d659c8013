"""Answers of a language model without and with LoRAs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...data.text.rows import Turn
from ...errors import CrucibleError
from ...files.names import unused_name
from ...merging.ingredients import Strengths
from ...merging.merge import BaseWeight, Ingredient
from ...messages.wording import listed
from ..applied_loras import applied, combined, ingredient
from .model import Answer, LanguageBaseModel


class PromptTooLong(CrucibleError):
    """A conversation is longer than what the model can read."""


class SideBySide:
    """Writes answers of a base model, and of the same model with LoRAs. The model's session must be open.

    Args:
        base_model: the language model.
        loras: the LoRAs and their strengths.
        base_weight: the base model's weights, for DoRAs whose strength is not 1.
        max_new_tokens: the most tokens of an answer.
        seed: the seed of sampling; None takes the likeliest token each time.

    Raises:
        CrucibleError: a LoRA does not fit the model.
    """

    def __init__(
        self,
        base_model: LanguageBaseModel,
        loras: Sequence[Strengths],
        base_weight: BaseWeight | None = None,
        max_new_tokens: int = 128,
        seed: int | None = None,
    ) -> None:
        self._base_model, self._base_weight = base_model, base_weight
        self._max_new_tokens, self._seed = max_new_tokens, seed
        self._loras: dict[str, Ingredient] = {}
        for one in loras:
            name = unused_name(one.lora.name, self._loras.__contains__)
            # The whole model is what image models have as a text encoder.
            self._loras[name] = replace(ingredient(one, base_model), strength_model=one.clip)

    @property
    def strengths(self) -> dict[str, float]:
        """The strength of each LoRA, by name."""
        return {name: one.strength_clip for name, one in self._loras.items()}

    def set_strength(self, name: str, strength: float) -> None:
        """Set the strength of a LoRA, named by its file with or without ending.

        Raises:
            CrucibleError: there is no such LoRA.
        """
        found = [one for one in self._loras if name in (one, one.rpartition(".")[0])]
        if not found:
            raise CrucibleError(
                f"There is no LoRA {name!r} here; those that were loaded are {listed(list(self._loras))}. Name one of "
                "them, or start again with a further --lora."
            )
        self._loras[found[0]] = replace(self._loras[found[0]], strength_model=strength, strength_clip=strength)

    def of_base(self, conversations: Sequence[Sequence[Turn]]) -> list[Answer]:
        """Return the base model's answers to conversations that end with a user's turn."""
        return self._answers(conversations)

    def with_loras(self, conversations: Sequence[Sequence[Turn]]) -> list[Answer]:
        """Return the answers with the LoRAs to conversations that end with a user's turn."""
        used = [one for one in self._loras.values() if one.strength_clip]
        if not used:
            return self._answers(conversations)
        with applied(self._base_model, combined(used, self._base_weight), "linear"):
            return self._answers(conversations)

    def _answers(self, conversations: Sequence[Sequence[Turn]]) -> list[Answer]:
        prompts = [self._base_model.renderer.prompt(turns) for turns in conversations]
        longest, most = max(map(len, prompts), default=0), self._base_model.reads
        if most is not None and longest >= most:
            raise PromptTooLong(
                f"The prompt, with what was said before, has {longest:,} tokens, but {self._base_model.name} reads "
                f"{most:,} at most, answer included, so what it answers would be of no use. Shorten the prompt, or "
                "begin a new conversation."
            )
        return self._base_model.answers(prompts, self._max_new_tokens, self._seed)
