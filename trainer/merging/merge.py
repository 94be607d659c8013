"""Merge several LoRAs into one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from peft.utils import merge_utils
from torch import Tensor

from ..errors import CrucibleError
from ..formats.delta import BIASES, delta_weight, kind_of, needs_base_weight, rank_of
from ..formats.lora_file import BIAS, RESHAPE, LayerTensors
from ..formats.spelling import names_text_encoder
from ..formats.universal import Layers
from ..hardware.out_of_memory import Attempt, first_that_fits
from ..seeding import derived_seed, global_seed
from .recipe import Recipe
from .refactor import factors_of, lora_of, lora_of_matrix, thin_svd, truncated, weight_shape

RANK_OF_OTHERS = 64
"""The rank that a LoHa, LoKr, DoRA or difference counts for if the rank of the result is not given; their effective
rank is higher than their size suggests."""


@dataclass(frozen=True)
class Ingredient:
    """A LoRA to be merged.

    Attributes:
        digest: the SHA-256 of its tensors; LoRAs are merged in this order, so the order in which they are given does
            not matter.
    """

    name: str
    lora: Layers
    strength_model: float
    strength_clip: float
    digest: str

    def strength(self, key: str) -> float:
        """Return the strength on a layer, which is a text encoder's or the model's."""
        return self.strength_clip if names_text_encoder(key) else self.strength_model


@dataclass(frozen=True)
class Merged:
    """The result of merging or resizing LoRAs.

    Attributes:
        lora: the layers of the result.
        errors: the relative error of each layer that was reduced to a lower rank (0 is exact): the norm of what was
            lost, divided by the norm of the exact ΔW.
        total_error: the relative error of all layers together.
    """

    lora: Layers
    errors: dict[str, float] = field(default_factory=dict)
    total_error: float = 0.0

    def error_text(self) -> str:
        """Describe how exact the result is, overall and layer by layer."""
        lines = [f"  {error:6.1%}  {key}" for key, error in sorted(self.errors.items(), key=lambda item: -item[1])]
        if lines:
            lines = [
                f"Lost by the lower rank: {self.total_error:.1%} of the whole (relative error; 0% is exact). The "
                f"{len(lines)} layers that lost something, worst first:",
                *lines,
            ]
        else:
            lines = ["No layer lost anything by its rank: each one does exactly what was asked for."]
        return "\n".join(lines)


CPU = torch.device("cpu")

BaseWeight = Callable[[str], Tensor | None]
"""A function that returns the base model's weight of a layer, by key in memory; None if there is no such weight."""


@torch.no_grad()
def merge(
    ingredients: Sequence[Ingredient],
    recipe: Recipe,
    base_weight: BaseWeight | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device = CPU,
) -> Merged:
    """Merge LoRAs into one that does what all of them do together.

    This goes layer by layer, so the full weights of only one layer are in memory at a time. Linear: Σ strength · ΔW,
    exact because the factors are concatenated. TIES (Yadav et al. 2023, arXiv:2306.01708), DARE (Yu et al. 2023,
    arXiv:2311.03099) and magnitude pruning: peft's implementations, applied to the ΔW of each layer.

    Args:
        ingredients: the LoRAs and their strengths.
        recipe: the method and its settings.
        base_weight: the base model's weights; required for DoRAs.
        progress: a function called with the number of layers done and of all layers; it may raise to stop.
        device: the device for computing; layers for which it does not have enough memory are computed on the CPU.

    Raises:
        CrucibleError: there is nothing to merge, a DoRA lacks its base model, or the LoRAs are for different models.
    """
    layers, errors = {}, {}
    squares = lost = 0.0
    # Largest first: the memory that they free then holds the results of the others, so the process does not grow.
    joint = sorted(layers_of_all(ingredients, recipe, base_weight), key=lambda layer: -layer.size)
    for number, layer in enumerate(joint):
        if progress is not None:
            progress(number, len(joint))
        places = dict.fromkeys((device, CPU))
        found = first_that_fits(Attempt(f"on {place}", partial(layer.as_lora, place)) for place in places)
        layers[layer.key], square, error = found.required()
        if error is not None:
            errors[layer.key] = error
        squares += square
        lost += square * (error or 0.0) ** 2
    dotted = {key: name for one in ingredients for key, name in one.lora.dotted.items() if key in layers}
    return Merged(Layers(layers, dotted), errors, math.sqrt(lost / squares) if squares else 0.0)


def rank_too_low(rank: int) -> CrucibleError:
    """Return the error for a rank below 1."""
    return CrucibleError(
        f"The rank is {rank}, but a layer needs at least 1 to be changed at all. Set a higher rank, such as 16, or "
        "leave it out."
    )


def _on(device: torch.device, adapter: LayerTensors) -> LayerTensors:
    return {suffix: tensor.to(device) for suffix, tensor in adapter.items()}


def layers_of_all(
    ingredients: Sequence[Ingredient], recipe: Recipe, base_weight: BaseWeight | None = None
) -> Iterator[JointLayer]:
    """Yield each layer that any of the LoRAs changes, ordered by key.

    Raises:
        CrucibleError: there is no LoRA with a strength, or the recipe is invalid.
    """
    used = sorted(
        (one for one in ingredients if one.strength_model or one.strength_clip),
        key=lambda one: (one.digest, one.strength_model, one.strength_clip),
    )
    if not used:
        raise CrucibleError(
            "There is no LoRA to merge: the stack is empty, or all strengths are 0. Connect a lora_stack with at least "
            "one LoRA whose strength is not 0."
        )
    if not 0 < recipe.density <= 1:
        raise CrucibleError(
            f"density is {recipe.density}, but it is the share of each LoRA's values that is kept, so it must be above "
            "0 and at most 1. 0.5 is usual."
        )
    if recipe.rank is not None and recipe.rank < 1:
        raise rank_too_low(recipe.rank)
    for key in sorted({key for one in used for key in one.lora.layers}):
        parts = [(one, one.lora.layers[key]) for one in used if key in one.lora.layers and one.strength(key)]
        if parts:
            yield JointLayer(key, parts, recipe, base_weight)


class JointLayer:
    """One layer, with the adapters that the LoRAs have for it."""

    def __init__(
        self,
        key: str,
        parts: Sequence[tuple[Ingredient, LayerTensors]],
        recipe: Recipe,
        base_weight: BaseWeight | None = None,
    ) -> None:
        self.key, self._recipe, self._base_weight = key, recipe, base_weight
        self._biases = [(one, adapter[suffix]) for one, adapter in parts for suffix in BIASES if suffix in adapter]
        self._parts = [(one, adapter) for one, adapter in parts if adapter.keys() - set(BIASES)]
        self._shape = next((adapter[RESHAPE] for _, adapter in parts if RESHAPE in adapter), None)

    @property
    def names(self) -> str:
        """The names of the LoRAs that have this layer, as shown to users."""
        return " and ".join(dict.fromkeys(one.name for one, _ in [*self._parts, *self._biases]))

    @property
    def size(self) -> int:
        """The number of values that the LoRAs have for this layer."""
        return sum(tensor.numel() for _, adapter in self._parts for tensor in adapter.values())

    @property
    def has_weight(self) -> bool:
        """Whether a LoRA changes the layer's weight."""
        return bool(self._parts)

    @property
    def has_bias(self) -> bool:
        """Whether a LoRA changes the layer's bias."""
        return bool(self._biases)

    def bias(self) -> Tensor | None:
        """Compute the change to the layer's bias, (out,), float32; None if there is none."""
        self._require_one_shape([tuple(bias.shape) for _, bias in self._biases])
        return self._combined(self._biases) if self._biases else None

    def delta(self, device: torch.device = CPU) -> Tensor | None:
        """Compute the change to the layer's weight, in the weight's shape, float32; None if there is none."""
        return self._combined(list(self._deltas(device))) if self._parts else None

    def as_lora(self, device: torch.device = CPU) -> tuple[LayerTensors, float, float | None]:
        """Return the merged layer, the squared norm of the exact ΔW, and the relative error (None if it is exact)."""
        bias = self.bias()
        layer = {} if bias is None else {BIAS: bias}
        if self._shape is not None:
            layer[RESHAPE] = self._shape
        if not self._parts:
            return layer, 0.0, None
        if self._recipe.method == "linear" and (factors := self._factors(device)) is not None:
            up, down, shape = factors
            rank = self._recipe.rank or len(down)
            if len(down) <= min(len(up), down.shape[1]):
                if rank >= len(down):
                    square = float((up.T @ up).flatten() @ (down @ down.T).flatten())
                    return layer | lora_of(up, down, shape), square, None
                lora, square, error = truncated(*thin_svd(up, down), rank, shape)
                return layer | lora, square, error
        delta = self.delta(device)
        assert delta is not None
        if self._stays_a_difference(delta):
            return layer | {".diff": delta.to("cpu")}, float(delta.double().square().sum()), None
        lora, square, error = lora_of_matrix(delta, self._recipe.rank or self._sum_of_ranks())
        return layer | lora, square, error

    def _stays_a_difference(self, delta: Tensor) -> bool:
        """Return whether the layer may be a parameter that is no layer's weight, on which no program reads a LoRA."""
        of_parameter = any(self.key in one.lora.dotted for one, _ in self._parts)
        return delta.ndim < 2 or (of_parameter and all(kind_of(adapter) == "diff" for _, adapter in self._parts))

    def _factors(self, device: torch.device) -> tuple[Tensor, Tensor, tuple[int, ...]] | None:
        """Return all LoRAs as one pair of factors, (out, ranks) and (ranks, in), and the shape of the layer's weight.

        Returns None if one of them is not a plain LoRA.
        """
        found = [factors_of(_on(device, adapter)) for _, adapter in self._parts]
        factors = [pair for pair in found if pair is not None]
        if len(factors) < len(found):
            return None
        shapes = [weight_shape(adapter) for _, adapter in self._parts]
        self._require_one_shape(shapes)
        up = [one.strength(self.key) * up for (one, _), (up, _) in zip(self._parts, factors, strict=True)]
        return torch.cat(up, dim=1), torch.cat([down for _, down in factors]), shapes[0]

    def _deltas(self, device: torch.device) -> Iterator[tuple[Ingredient, Tensor]]:
        base_weight = None
        if self._base_weight is not None and any(needs_base_weight(adapter) for _, adapter in self._parts):
            base_weight = self._base_weight(self.key)
            base_weight = None if base_weight is None else base_weight.to(device)
        shapes: list[tuple[int, ...]] = []
        for one, adapter in self._parts:
            delta = delta_weight(_on(device, adapter), base_weight, f"{one.name} at {self.key}")
            shapes.append(tuple(delta.shape))
            self._require_one_shape(shapes)
            yield one, delta.reshape(shapes[0])

    def _combined(self, deltas: Sequence[tuple[Ingredient, Tensor]]) -> Tensor:
        """Combine changes by the recipe's method. LoRAs without this layer are not counted, as in peft."""
        # The sign of a strength is moved into the values, because some methods compare their signs.
        signed = [delta.float() * math.copysign(1.0, one.strength(self.key)) for one, delta in deltas]
        device = signed[0].device
        if self._recipe.method.startswith("dare"):  # its random numbers would differ on another device
            signed = [delta.to(CPU) for delta in signed]
        weights = torch.tensor([abs(one.strength(self.key)) for one, _ in deltas], device=signed[0].device)
        return self._by_method(signed, weights).to(device)

    def _by_method(self, signed: list[Tensor], weights: Tensor) -> Tensor:
        recipe = self._recipe
        with global_seed(derived_seed(recipe.seed, self.key), weights.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns about a density of 1
            match recipe.method:
                case "linear":
                    return merge_utils.task_arithmetic(signed, weights)
                case "magnitude_prune":
                    return merge_utils.magnitude_prune(signed, weights, recipe.density)
                case "dare_linear":
                    return merge_utils.dare_linear(signed, weights, recipe.density)
                case "ties":
                    return merge_utils.ties(signed, weights, recipe.density, recipe.majority_sign)
                case "dare_ties":
                    return merge_utils.dare_ties(signed, weights, recipe.density, recipe.majority_sign)

    def _sum_of_ranks(self) -> int:
        ranks = [(rank_of(adapter) if kind_of(adapter) == "lora" else None) for _, adapter in self._parts]
        return sum(RANK_OF_OTHERS if rank is None else rank for rank in ranks)

    def _require_one_shape(self, shapes: Sequence[tuple[int, ...]]) -> None:
        for shape in shapes[1:]:
            # A 1x1 convolution is a linear layer, and trainers differ in the shape that they give it.
            if shapes[0][0] != shape[0] or math.prod(shapes[0]) != math.prod(shape):
                first, other = (" x ".join(map(str, one)) for one in (shapes[0], shape))
                raise CrucibleError(
                    f"{self.names} are for different base models: {self.key} is {first} in one and {other} in another. "
                    "Only merge LoRAs for the same architecture."
                )
