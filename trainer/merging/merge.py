"""Several LoRAs as one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from peft.utils import merge_utils
from torch import Tensor

from ..errors import CrucibleError
from ..formats.adapter_keys import names_text_encoder
from ..formats.delta import BIASES, delta_weight, kind_of, rank_of
from ..formats.lora_file import DORA_SCALE, LayerTensors
from ..formats.universal import Layers
from ..hardware.device_memory import out_of_memory_freed
from ..seeding import derived_seed, global_seed
from .recipe import Recipe
from .refactor import factors_of, lora_of, lora_of_matrix, thin_svd, truncated, weight_shape

RANK_OF_OTHERS = 64
"""What a LoHa, LoKr, DoRA or difference counts for where the rank of the result is not given: their own is higher than
their size would let think."""


@dataclass(frozen=True)
class Ingredient:
    """A LoRA that is to be merged.

    Attributes:
        digest: SHA-256 of its tensors; decides the order, so that the order in which they are given does not matter.
    """

    name: str
    lora: Layers
    strength_model: float
    strength_clip: float
    digest: str

    def strength(self, key: str) -> float:
        return self.strength_clip if names_text_encoder(key) else self.strength_model


@dataclass(frozen=True)
class Merged:
    """
    Attributes:
        errors: how far each layer is from what it should be, as a share of its length (0 is exact); only layers that
            were brought to a lower rank.
        total_error: of all layers together.
        left_out: keys of the files that are no part of an adapter.
    """

    lora: Layers
    errors: dict[str, float] = field(default_factory=dict)
    total_error: float = 0.0
    left_out: tuple[str, ...] = ()

    def error_text(self) -> str:
        """How exact the result is, in all and layer by layer."""
        lines = [f"  {error:6.1%}  {key}" for key, error in sorted(self.errors.items(), key=lambda item: -item[1])]
        if lines:
            lines = [
                f"Lost by the lower rank: {self.total_error:.1%} of the whole, as a share of the length of what was to "
                f"be (0 % is exact). Of the {len(lines)} layers that lost something, the worst first:",
                *lines,
            ]
        else:
            lines = ["No layer lost anything by its rank: each does exactly what was asked."]
        if self.left_out:
            some = ", ".join(self.left_out[:3])
            lines.append(f"Left out, for they are no part of a layer: {len(self.left_out)} keys ({some}).")
        return "\n".join(lines)


CPU = torch.device("cpu")

BaseWeight = Callable[[str], Tensor | None]
"""The base model's weight of a layer, by key in memory; None where there is none."""


@torch.no_grad()
def merge(
    ingredients: Sequence[Ingredient],
    recipe: Recipe,
    base_weight: BaseWeight | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device = CPU,
) -> Merged:
    """One LoRA that does what all do together, layer by layer: no more than one layer's full weights are in memory.

    Linear: Σ strength · ΔW, exact by concatenating the factors. TIES (Yadav et al. 2023, arXiv:2306.01708), DARE (Yu et
    al. 2023, arXiv:2311.03099) and magnitude pruning are peft's, on the ΔW of each layer.

    Args:
        base_weight: needed for DoRAs.
        progress: gets layers done and in all; may raise to stop.
        device: where a layer is computed; on the CPU where that has no memory for it.

    Raises:
        CrucibleError: nothing to merge, a DoRA without its base model, or LoRAs of different models.
    """
    layers, errors = {}, {}
    squares = lost = 0.0
    # The largest first: what they free holds the results of the others, and the process does not grow.
    joint = sorted(layers_of_all(ingredients, recipe, base_weight), key=lambda layer: -layer.size)
    for number, layer in enumerate(joint):
        if progress is not None:
            progress(number, len(joint))
        found = None
        if device != CPU:
            with out_of_memory_freed():
                found = layer.as_lora(device)
        layers[layer.key], square, error = found or layer.as_lora(CPU)
        if error is not None:
            errors[layer.key] = error
        squares += square
        lost += square * (error or 0.0) ** 2
    dotted = {key: name for one in ingredients for key, name in one.lora.dotted.items() if key in layers}
    left_out = tuple(key for one in ingredients for key in one.lora.leftover)
    return Merged(Layers(layers, dotted), errors, math.sqrt(lost / squares) if squares else 0.0, left_out)


def rank_too_low(rank: int) -> CrucibleError:
    return CrucibleError(
        f"The rank is {rank}, but a layer needs at least 1 to be changed at all. Give a higher one, say 16, or leave "
        "it out."
    )


def _on(device: torch.device, adapter: LayerTensors) -> LayerTensors:
    return {suffix: tensor.to(device) for suffix, tensor in adapter.items()}


def layers_of_all(
    ingredients: Sequence[Ingredient], recipe: Recipe, base_weight: BaseWeight | None = None
) -> Iterator[JointLayer]:
    """Each layer that any of them changes, by key.

    Raises:
        CrucibleError: there is none, or the recipe is no good.
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
    """One layer, and what each LoRA has for it."""

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

    @property
    def names(self) -> str:
        """Of the LoRAs that have this layer, for people."""
        return " and ".join(dict.fromkeys(one.name for one, _ in [*self._parts, *self._biases]))

    @property
    def size(self) -> int:
        """Of what the LoRAs have here, in numbers."""
        return sum(tensor.numel() for _, adapter in self._parts for tensor in adapter.values())

    @property
    def has_weight(self) -> bool:
        return bool(self._parts)

    @property
    def has_bias(self) -> bool:
        return bool(self._biases)

    def bias(self) -> Tensor | None:
        """What is to be added to the layer's bias, (out,), float32; None for nothing."""
        self._require_one_shape([tuple(bias.shape) for _, bias in self._biases])
        return self._combined(self._biases) if self._biases else None

    def delta(self, device: torch.device = CPU) -> Tensor | None:
        """What is to be added to the layer's weight, of its shape, float32; None for nothing."""
        return self._combined(list(self._deltas(device))) if self._parts else None

    def as_lora(self, device: torch.device = CPU) -> tuple[LayerTensors, float, float | None]:
        """The layer of the result, the square of the length of what it should do, and how far it is from that as a
        share of the length: None where nothing was lost."""
        bias = self.bias()
        layer = {} if bias is None else {".diff_b": bias}
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
        if delta.ndim < 2:
            return layer | {".diff": delta.to("cpu")}, float(delta.double().square().sum()), None
        lora, square, error = lora_of_matrix(delta, self._recipe.rank or self._sum_of_ranks())
        return layer | lora, square, error

    def _factors(self, device: torch.device) -> tuple[Tensor, Tensor, tuple[int, ...]] | None:
        """All LoRAs as one: (out, ranks), (ranks, in), and the shape of the weight; None where one is no LoRA."""
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
        if self._base_weight is not None and any(DORA_SCALE in adapter for _, adapter in self._parts):
            base_weight = self._base_weight(self.key)
            base_weight = None if base_weight is None else base_weight.to(device)
        shapes: list[tuple[int, ...]] = []
        for one, adapter in self._parts:
            delta = delta_weight(_on(device, adapter), base_weight, f"{one.name} at {self.key}")
            shapes.append(tuple(delta.shape))
            self._require_one_shape(shapes)
            yield one, delta.reshape(shapes[0])

    def _combined(self, deltas: Sequence[tuple[Ingredient, Tensor]]) -> Tensor:
        """By the method; a LoRA that has nothing here has no say, as in peft."""
        # The sign belongs to the values, so that it counts where signs are compared.
        signed = [delta.float() * math.copysign(1.0, one.strength(self.key)) for one, delta in deltas]
        device = signed[0].device
        if self._recipe.method.startswith("dare"):  # whose random numbers would be others on another device
            signed = [delta.to(CPU) for delta in signed]
        weights = torch.tensor([abs(one.strength(self.key)) for one, _ in deltas], device=signed[0].device)
        return self._by_method(signed, weights).to(device)

    def _by_method(self, signed: list[Tensor], weights: Tensor) -> Tensor:
        recipe = self._recipe
        with global_seed(derived_seed(recipe.seed, self.key), weights.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a density of 1
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
            # A convolution over single pixels is a linear layer, and trainers differ in what they make of it.
            if shapes[0][0] != shape[0] or math.prod(shapes[0]) != math.prod(shape):
                first, other = (" x ".join(map(str, one)) for one in (shapes[0], shape))
                raise CrucibleError(
                    f"{self.names} are for different base models: {self.key} is {first} in one and {other} in another. "
                    "Merge LoRAs for the same architecture only."
                )
