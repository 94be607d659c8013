"""Whether a LoRA fits the model that it is put on: by the sizes of layers, and by architecture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import CrucibleError
from ...formats.architectures import Architecture
from ...formats.identify import architecture_names, candidates
from ...formats.layer_tables.model_sizes import SIZES


@dataclass(frozen=True)
class Misfit:
    """A layer of a LoRA whose name is that of a layer of the model, but not its size.

    Attributes:
        layer: the layer's name in the model.
        in_lora, in_model: the numbers of outputs and of inputs (times the kernel's size).
    """

    layer: str
    in_lora: tuple[int, int]
    in_model: tuple[int, int]

    @property
    def is_larger(self) -> bool:
        """Whether the LoRA's layer has more values than the model's."""
        return math.prod(self.in_lora) > math.prod(self.in_model)

    def text(self) -> str:
        """Return what the sizes are: "blocks.0.ffn.0 is 13824 x 5120 in the LoRA and 8960 x 1536 in the model"."""
        lora, model = (" x ".join(map(str, size)) for size in (self.in_lora, self.in_model))
        return f"{self.layer} is {lora} in the LoRA and {model} in the model"


@dataclass(frozen=True)
class Match:
    """How a LoRA matches a model.

    Attributes:
        matched: the number of its keys that match.
        unmatched: the keys that do not.
        elsewhere: the number of keys that are for a MODEL or a CLIP that is not connected.
        misfits: the layers whose names match, but not their sizes.
        problem: why the keys could not be read by the names of other programs; None if they could.
    """

    matched: int
    unmatched: tuple[str, ...]
    elsewhere: int
    misfits: tuple[Misfit, ...]
    problem: CrucibleError | None


def weight_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name, without quantized ones: those are packed into other shapes."""
    return {name: tuple(one.shape) for name, one in module.named_parameters() if one.is_floating_point()}


def misfit(patch: Any, target: Any, shapes: Mapping[str, tuple[int, ...]]) -> Misfit | None:
    """Return how the weight difference of a patch differs in size from its target weight; None if it fits.

    Matching names are not enough, because several architectures share them. ComfyUI would skip a patch of the wrong
    size as well, with only a line in its log.
    """
    weight, *slicing = (target,) if isinstance(target, str) else target
    size = _size(patch)
    if size is None or weight not in shapes:
        return None
    shape = list(shapes[weight])
    if slicing and slicing[0] is not None:
        dimension, _, length = slicing[0]
        shape[dimension] = length
    if math.prod(size) == math.prod(shape):
        return None
    layer = weight.removeprefix("diffusion_model.").removesuffix(".weight")
    return Misfit(layer, size, (shape[0], math.prod(shape[1:])) if shape else (1, 1))


def _size(patch: Any) -> tuple[int, int] | None:
    """Return the outputs and inputs of a patch's weight difference, or None if its factors do not simply show them."""
    if isinstance(patch, tuple):
        kind, (difference, *_) = patch
        if kind != "diff":
            return None
        return (len(difference), difference[0].numel()) if difference.ndim else (1, 1)
    if patch.name == "lora":
        up, down, _, mid, _, reshape = patch.weights
        return (up.shape[0], down[0].numel()) if mid is None and reshape is None else None
    if patch.name == "loha":
        a, b, *_, t1, _, _ = patch.weights
        return (a.shape[0], b[0].numel()) if t1 is None else None
    return None


def require_fitting(name: str, lora: Mapping[str, Tensor], architecture: Architecture, match: Match) -> None:
    """Check that a LoRA of which some keys do not match is for this model, although a few names and sizes may match.

    Raises:
        CrucibleError: it is for a model of another size or architecture, or for a text encoder that is not connected,
            or it is broken.
    """
    possible = candidates({key: tuple(tensor.shape) for key, tensor in lora.items()}, getattr(lora, "metadata", {}))
    other = bool(possible) and architecture.id != "unknown" and architecture not in possible
    if match.matched and not (other and match.matched < len(match.unmatched)):
        return
    if match.elsewhere and not match.unmatched:
        raise CrucibleError(
            f"{name} changes only the text encoder ({match.elsewhere} keys), and no CLIP is connected, so it would "
            "have no effect. Connect the CLIP output of the loader that the model comes from."
        )
    if match.problem is not None and architecture in possible:
        raise match.problem
    count = match.matched + len(match.unmatched) + match.elsewhere
    made_for, model, sizes = architecture_names(possible), architecture.name, ""
    if match.misfits and not other:
        largest = max(match.misfits, key=lambda one: math.prod(one.in_lora))
        larger = f"a {'larger' if largest.is_larger else 'smaller'} model of the same architecture"
        made_for = _published(architecture, [one.in_lora for one in match.misfits]) or larger
        model = _published(architecture, [one.in_model for one in match.misfits]) or model
        sizes = f" The sizes differ: {largest.text()}."
    raise CrucibleError(
        f"{name} does not fit this model: it was made for {made_for}, and this model is {model}.{sizes} "
        f"{match.matched} of its {count} keys match this model, so it would "
        f"{'damage images rather than change them as intended' if match.matched else 'have no effect'}. Choose a LoRA "
        f"for {'this size of the model' if sizes else 'this model'}, or load the model that the LoRA was trained on."
    )


def _published(architecture: Architecture, sizes: Iterable[tuple[int, int]]) -> str:
    """Return the name of the published model with layers of these sizes, such as "Wan 14B"; empty if there is none."""
    numbers = Counter(number for size in sizes for number in size)
    named = max(SIZES.get(architecture.id, ()), key=lambda one: numbers[one.width], default=None)
    return named.name if named is not None and numbers[named.width] else ""
