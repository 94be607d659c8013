"""Answers of a language model without and with LoRAs, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from ...adapters.spec import AdapterSpec
from ...data.text.rows import Turn
from ...errors import CrucibleError
from ...files.names import unused_name
from ...formats.delta import BIASES, kind_of, rank_of, scale_of
from ...formats.lora_file import ALPHA, LayerTensors
from ...formats.universal import Layers, read_layers
from ...merging.ingredients import Strengths
from ...merging.merge import BaseWeight, Ingredient, merge
from ...merging.recipe import Recipe
from ...messages.wording import counted, listed
from ..base import BaseModel
from ..initial_lora import fits
from .model import Answer, LanguageBaseModel

_EXACT = 1_000_000
"""A rank at which merging loses nothing."""


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
            self._loras[name] = _ingredient(one, base_model)

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
        with _applied(self._base_model, _combined(used, self._base_weight)):
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


def _ingredient(one: Strengths, base_model: BaseModel) -> Ingredient:
    lora, shapes = read_layers(one.lora, base_model.place_of), base_model.layer_shapes()
    foreign = [key for key, layer in lora.layers.items() if key not in shapes or not fits(layer, shapes[key])]
    unread = [*foreign, *(key for key, layer in lora.layers.items() if layer.keys() & set(BIASES)), *lora.leftover]
    if unread:
        raise CrucibleError(
            f"{one.lora.name} cannot be used with {base_model.name}: the model has no place for "
            f"{counted(len(unread), 'part')} of it ({listed(unread)}), or has it in another size. Its answers would "
            "not be those that it was trained to give. Name the base model that it was trained on."
        )
    return Ingredient(one.lora.name, lora, one.clip, one.clip, one.digest)


def _combined(loras: Sequence[Ingredient], base_weight: BaseWeight | None) -> dict[str, LayerTensors]:
    """Return layers that do what the LoRAs do together, float32."""
    if len(loras) == 1:
        (one,) = loras
        kinds = {kind_of(layer) for layer in one.lora.layers.values()}
        if kinds <= {"lora", "loha", "lokr"} or (kinds <= {"lora", "dora", "loha", "lokr"} and one.strength_clip == 1):
            return {key: _scaled(layer, one.strength_clip) for key, layer in one.lora.layers.items()}
    merged: Layers = merge(loras, Recipe("linear", rank=_EXACT), base_weight).lora
    return merged.layers


def _scaled(layer: LayerTensors, strength: float) -> LayerTensors:
    floats = {suffix: tensor.float() for suffix, tensor in layer.items()}
    if strength == 1:
        return floats
    if rank := rank_of(layer):
        return floats | {ALPHA: torch.tensor(scale_of(layer) * rank * strength)}
    return floats | {".lokr_w1": floats[".lokr_w1"] * strength}


@contextmanager
def _applied(base_model: LanguageBaseModel, layers: Mapping[str, LayerTensors]) -> Iterator[None]:
    spec = AdapterSpec(1, 1.0, 0.0, "linear", start=layers)
    with base_model.attached(spec, False) as adapters:
        adapters.initialise(0)
        adapters.load(layers)
        with adapters.without_dropout():
            yield
