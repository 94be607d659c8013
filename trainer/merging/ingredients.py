"""Prepare LoRAs from files or sockets for merging, resizing or converting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ..errors import CrucibleError
from ..formats.architectures import ARCHITECTURES, Architecture
from ..formats.identify import architecture_names, candidates
from ..formats.lora_model import LoraModel
from ..formats.names import Place, place_of
from ..formats.tensor_file import data_parts, hash_of
from ..formats.universal import Layers, read_layers
from .merge import Ingredient


@dataclass(frozen=True)
class Strengths:
    """A LoRA of a stack, with its strengths on the model and the text encoders."""

    lora: LoraModel
    model: float
    clip: float

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the tensors in file order, which is sshs_model_hash in files that this package wrote."""
        return hash_of(data_parts(self.lora))

    def record(self) -> dict[str, Any]:
        """Return the entry for this LoRA in the metadata of a file made from it."""
        return {
            "name": self.lora.name,
            "sha256": self.digest,
            "strength_model": self.model,
            "strength_clip": self.clip,
        }


def architecture_of_all(loras: Sequence[LoraModel]) -> Architecture:
    """Return the architecture that all LoRAs are for; the one named "unknown" if no file reveals it.

    Raises:
        CrucibleError: the LoRAs are for different architectures.
    """
    common: tuple[Architecture, ...] = ()
    first: LoraModel | None = None
    for lora in loras:
        found = candidates({key: tensor.shape for key, tensor in lora.items()}, lora.metadata)
        both = tuple(row for row in common if row in found) if common and found else common or found
        if not both and found:
            assert first is not None
            raise CrucibleError(
                f"{first.name} is for {architecture_names(common)}, and {lora.name} is for "
                f"{architecture_names(found)}. LoRAs for different base models cannot be merged; leave one of them out."
            )
        if found and not common:
            first = lora
        common = both
    return common[0] if common else ARCHITECTURES["unknown"]


def layers_of(lora: LoraModel, architecture: Architecture) -> Layers:
    """Sort a LoRA into layers, by the table of names of its architecture.

    Raises:
        CrucibleError: as `read_layers`.
    """
    resolve: Callable[[str], Place | None] = partial(place_of, architecture=architecture)
    return read_layers(lora, resolve)


def ingredients(stack: Sequence[Strengths], architecture: Architecture) -> list[Ingredient]:
    """Prepare the LoRAs of a stack for `merge` or `bake`.

    Raises:
        CrucibleError: as `read_layers`.
    """
    return [
        Ingredient(one.lora.name, layers_of(one.lora, architecture), one.model, one.clip, one.digest) for one in stack
    ]
