"""Several LoRAs as one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from peft.utils import merge_utils
from torch import Tensor

from ..errors import CrucibleError
from ..formats.delta import delta_weight, rank_of
from ..formats.layer_names import is_of_text_encoder
from ..formats.lora_file import DORA_SCALE, DOWN, LayerTensors
from ..formats.universal import Layers, kind_of
from ..rng import derived_seed
from .refactor import as_lora, dense_svd, factors_of, lora_of, thin_svd

Method = Literal["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
METHODS: tuple[Method, ...] = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")

MajoritySign = Literal["total", "frequency"]
MAJORITY_SIGNS: tuple[MajoritySign, ...] = ("total", "frequency")

RANK_OF_OTHERS = 64
"""What a LoHa, LoKr, DoRA or difference counts for where the rank of the result is not given: their own is higher than
their size would let think."""


@dataclass(frozen=True)
class Ingredient:
    """A LoRA that is to be merged.

    Attributes:
        digest: of its tensors: decides the order, so that the order in which they are given does not matter.
    """

    name: str
    lora: Layers
    strength_model: float
    strength_clip: float
    digest: str

    def strength(self, key: str) -> float:
        return self.strength_clip if is_of_text_encoder(key) else self.strength_model


@dataclass(frozen=True)
class Recipe:
    """How to merge.

    Attributes:
        rank: of the result; None: as high as it must be to lose nothing (linear), or the sum of the ranks.
        density: what share of each LoRA's values is kept, above 0 to 1; not for linear.
        majority_sign: for TIES and DARE-TIES: which sign wins where they differ, that of the sum or of more of them.
        seed: of the values that DARE drops.
    """

    method: Method = "linear"
    rank: int | None = None
    density: float = 0.5
    majority_sign: MajoritySign = "total"
    seed: int = 0


@dataclass(frozen=True)
class Merged:
    """
    Attributes:
        errors: how far each layer is from what it should be, as a share of its length (0 is exact); only layers that
            were brought to a lower rank.
        total_error: of all layers together.
    """

    lora: Layers
    errors: dict[str, float] = field(default_factory=dict)
    total_error: float = 0.0


BaseWeight = Callable[[str], Tensor | None]
"""The base model's weight of a layer, by key in memory; None where there is none."""


@torch.no_grad()
def merge(
    ingredients: Sequence[Ingredient],
    recipe: Recipe,
    base_weight: BaseWeight | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """One LoRA that does what all do together, layer by layer: no more than one layer's full weights are in memory.

    Linear: Σ strength · ΔW, exact by concatenating the factors. TIES (Yadav et al. 2023, arXiv:2306.01708), DARE (Yu et
    al. 2023, arXiv:2311.03099) and magnitude pruning are peft's, on the ΔW of each layer.

    Args:
        base_weight: needed for DoRAs.
        progress: gets layers done and in all; may raise to stop.

    Raises:
        CrucibleError: nothing to merge, a DoRA without its base model, or LoRAs of different models.
    """
    used = sorted((one for one in ingredients if one.strength_model or one.strength_clip), key=lambda one: one.digest)
    if not used:
        raise CrucibleError(
            "There is no LoRA to merge: the stack is empty, or all strengths are 0. Connect a lora_stack with at least "
            "one LoRA whose strength is not 0."
        )
    if not 0 < recipe.density <= 1:
        raise CrucibleError(f"density is {recipe.density}, and must be above 0 and at most 1: the share that is kept.")
    keys = sorted({key for one in used for key in one.lora.layers})
    dotted = {key: name for one in used for key, name in one.lora.dotted.items()}
    layers, errors = {}, {}
    squares = lost = 0.0
    for number, key in enumerate(keys):
        if progress is not None:
            progress(number, len(keys))
        parts = [(one, one.lora.layers[key]) for one in used if key in one.lora.layers and one.strength(key)]
        if not parts:
            continue
        layer = _Layer(key, parts, recipe, None if base_weight is None else base_weight(key))
        layers[key] = layer.merged
        if layer.error is not None:
            errors[key] = layer.error
        squares += layer.square
        lost += layer.square * (layer.error or 0.0) ** 2
    return Merged(Layers(layers, dotted), errors, math.sqrt(lost / squares) if squares else 0.0)


class _Layer:
    """One layer of the result.

    Attributes:
        error: relative to the length of what was to be; None where nothing was lost. square: of that length.
    """

    def __init__(
        self, key: str, parts: Sequence[tuple[Ingredient, LayerTensors]], recipe: Recipe, base_weight: Tensor | None
    ) -> None:
        self._key, self._parts, self._recipe, self._base_weight = key, parts, recipe, base_weight
        self.error: float | None = None
        self.square = 0.0
        self.merged: LayerTensors = {}
        biases = {suffix for _, adapter in parts for suffix in adapter if suffix in (".diff_b", ".b_norm")}
        for suffix in sorted(biases):
            self.merged[suffix] = self._combined(
                [(one, adapter[suffix]) for one, adapter in parts if suffix in adapter]
            )
        self._merge_weights([(one, adapter) for one, adapter in parts if not adapter.keys() <= biases])

    def _merge_weights(self, parts: Sequence[tuple[Ingredient, LayerTensors]]) -> None:
        factors = [factors_of(adapter) for _, adapter in parts]
        if self._recipe.method == "linear" and parts and all(factors):
            self._concatenate(parts, [pair for pair in factors if pair is not None])
        elif parts:
            self._refactor(self._combined(list(self._deltas(parts))), self._rank_of_sum(parts))

    def _concatenate(
        self, parts: Sequence[tuple[Ingredient, LayerTensors]], factors: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        shape = self._shape(parts[0][1])
        for (one, adapter), (up, down) in zip(parts, factors, strict=True):
            if (len(up), down.shape[1]) != (shape[0], math.prod(shape[1:])):
                raise self._different(parts[0][0], shape, one, self._shape(adapter))
        up = torch.cat([one.strength(self._key) * up for (one, _), (up, _) in zip(parts, factors, strict=True)], 1)
        down = torch.cat([down for _, down in factors])
        limit = min(len(up), down.shape[1])
        if self._recipe.rank is None and len(down) <= limit:
            self.square = float((up.T @ up).flatten() @ (down @ down.T).flatten())
            self.merged |= lora_of(up, down, shape)
            return
        u, s, v = thin_svd(up, down) if len(down) <= limit else dense_svd(up @ down, self._recipe.rank)
        rank = min(self._recipe.rank or limit, limit)
        self.square = float(s.double().square().sum())
        if rank < len(s):
            self.error = _ratio(float(s[rank:].double().square().sum()), self.square)
        self.merged |= as_lora(u, s, v, rank, shape)

    def _deltas(self, parts: Sequence[tuple[Ingredient, LayerTensors]]) -> Iterator[tuple[Ingredient, Tensor]]:
        first = None
        for one, adapter in parts:
            if DORA_SCALE in adapter and self._base_weight is None:
                raise CrucibleError(
                    f"{one.name} is a DoRA, which changes the length of the base model's own weights, so what it does "
                    "cannot be told without them. Connect `model`, the base model that it was made for (on the command "
                    "line: --base), or leave it out."
                )
            delta = delta_weight(adapter, self._base_weight)
            first = delta if first is None else first
            if delta.numel() != first.numel() or len(delta) != len(first):
                raise self._different(parts[0][0], first.shape, one, delta.shape)
            yield one, delta.reshape(first.shape)

    def _combined(self, deltas: Sequence[tuple[Ingredient, Tensor]]) -> Tensor:
        """By the method; a LoRA that has nothing here has no say, as in peft."""
        # The sign belongs to the values, so that it counts where signs are compared.
        signed = [delta.float() * math.copysign(1.0, one.strength(self._key)) for one, delta in deltas]
        weights = torch.tensor([abs(one.strength(self._key)) for one, _ in deltas])
        recipe = self._recipe
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a density of 1
            torch.manual_seed(derived_seed(recipe.seed, self._key))
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

    def _refactor(self, delta: Tensor, rank: int) -> None:
        self.square = float(delta.double().square().sum())
        if delta.ndim < 2:
            self.merged[".diff"] = delta
            return
        flat = delta.flatten(1)
        rank = min(rank, *flat.shape)
        u, s, v = dense_svd(flat, rank)
        self.merged |= as_lora(u, s, v, rank, delta.shape)
        if rank < min(flat.shape):
            lost = flat - (u[:, :rank] * s[:rank]) @ v[:rank]
            self.error = _ratio(float(lost.double().square().sum()), self.square)

    def _rank_of_sum(self, parts: Sequence[tuple[Ingredient, LayerTensors]]) -> int:
        if self._recipe.rank is not None:
            return self._recipe.rank
        ranks = [(rank_of(adapter) if kind_of(adapter) == "lora" else None) for _, adapter in parts]
        return sum(RANK_OF_OTHERS if rank is None else rank for rank in ranks)

    def _shape(self, adapter: LayerTensors) -> tuple[int, ...]:
        """Of the layer's weight, from a LoRA."""
        factors = factors_of(adapter)
        assert factors is not None
        return (len(factors[0]), *_inputs(adapter))

    def _different(
        self, first: Ingredient, shape: Sequence[int], other: Ingredient, another: Sequence[int]
    ) -> CrucibleError:
        return CrucibleError(
            f"{first.name} and {other.name} are for different base models: {self._key} is "
            f"{' x '.join(map(str, shape))} in the first and {' x '.join(map(str, another))} in the other. Merge LoRAs "
            "for the same architecture only."
        )


def _inputs(adapter: LayerTensors) -> tuple[int, ...]:
    middle = adapter.get(".lora_mid.weight")
    return (adapter[DOWN].shape[1], *(adapter[DOWN] if middle is None else middle).shape[2:])


def _ratio(lost: float, whole: float) -> float:
    return math.sqrt(lost / whole) if whole else 0.0
