"""Prepare LoRAs from files or sockets for merging, resizing or converting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ..errors import CrucibleError
from ..formats.architectures import Architecture
from ..formats.lora_model import LoraModel
from ..formats.names import Place, place_of
from ..formats.tensor_file import data_parts, hash_of
from ..formats.universal import Layers, read_layers, with_wider_input
from ..messages.wording import counted, listed
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


def layers_of(lora: LoraModel, architecture: Architecture) -> Layers:
    """Sort a LoRA into layers, by the table of names of its architecture.

    Raises:
        CrucibleError: as `read_layers`; or the file has tensors that no layer has a place for.
    """
    resolve: Callable[[str], Place | None] = partial(place_of, architecture=architecture)
    layers = with_wider_input(read_layers(lora, resolve), architecture)
    lost = [key for key in layers.leftover if not key.startswith(EMBEDDING) and lora[key].is_floating_point()]
    if lost:
        raise CrucibleError(
            f"{lora.name} has {counted(len(lost), 'tensor')} that {'belongs' if len(lost) == 1 else 'belong'} to no "
            f"layer of a LoRA: {listed(lost)}. A file made from it would lack them, so nothing was written. They are "
            "often whole weights (norms of a control LoRA, PEFT's modules_to_save) or of a method that is not "
            "supported. Use the file as it is, or look for a version that is a LoRA alone."
        )
    return layers


EMBEDDING = "bundle_emb."
"""The start of the keys of an embedding that OneTrainer stores with a LoRA, and A1111 and Forge read from it."""


def embeddings_of(loras: Sequence[LoraModel]) -> dict[str, Tensor]:
    """Return the embeddings that files carry beside their LoRA, by key.

    Raises:
        CrucibleError: two files have different embeddings of one name.
    """
    found: dict[str, Tensor] = {}
    for lora in loras:
        for key, tensor in lora.items():
            if not key.startswith(EMBEDDING):
                continue
            if key in found and not torch.equal(found[key], tensor):
                raise CrucibleError(
                    f"{lora.name} and another of the LoRAs both carry an embedding {key}, and they differ, so one of "
                    "them would be lost. Merge one of them without its embedding, or rename it in the program that "
                    "made it."
                )
            found[key] = tensor
    return found


def embeddings_note(loras: Sequence[LoraModel]) -> list[str]:
    """Return a line for the user about the embeddings of the files, if there are any."""
    found = list(embeddings_of(loras))
    return [f"Kept as in the file, for A1111 and Forge: the embeddings {listed(found)}."] if found else []


def ingredients(stack: Sequence[Strengths], architecture: Architecture) -> list[Ingredient]:
    """Prepare the LoRAs of a stack for `merge` or `bake`.

    Raises:
        CrucibleError: as `read_layers`.
    """
    return [
        Ingredient(one.lora.name, layers_of(one.lora, architecture), one.model, one.clip, one.digest) for one in stack
    ]
