"""What is trained on which layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from torch import nn

from ..config import ResolvedConfig
from ..config.layer_patterns import LayerPattern, parse_patterns
from ..formats.delta import rank_of, scale_of
from ..formats.lora_file import LayerTensors
from ..formats.universal import kind_of
from .targets import is_adaptable, select_layers

Algorithm = Literal["lora", "rslora", "dora", "loha", "lokr"]


@dataclass(frozen=True)
class AdapterSpec:
    """Settings that describe which adapters are trained.

    Attributes:
        rank, alpha: the rank, and the alpha that scales the adapter's output by alpha / rank (alpha / sqrt(rank) for
            rslora).
        dropout: the share of the adapter's inputs that is dropped, 0 to 1; not for loha and lokr.
        target_modules: the kind of layers to train if there are no `patterns`.
        algorithm: lora (Hu et al. 2021, arXiv:2106.09685), rslora (Kalajdzievski 2023, arXiv:2312.03732), dora (Liu et
            al. 2024, arXiv:2402.09353), loha (Hyeon-Woo et al. 2021, arXiv:2108.06098), lokr (Yeh et al. 2023,
            arXiv:2309.14859).
        patterns: the layers to train by name, with their own ranks and alphas.
        text_encoder: whether the text encoders are trained too.
        start: the layers of a LoRA to continue from, by file key. A model that has some of them gets adapters on these
            only, each with its own algorithm, rank and alpha.
    """

    rank: int
    alpha: float
    dropout: float
    target_modules: str
    algorithm: Algorithm = "lora"
    patterns: tuple[LayerPattern, ...] = ()
    text_encoder: bool = False
    start: Mapping[str, LayerTensors] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ResolvedConfig, start: Mapping[str, LayerTensors] | None = None) -> AdapterSpec:
        """Create the spec that a config asks for."""
        return cls(
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
            config.target_modules,
            config.algorithm,
            parse_patterns(config.layer_patterns),
            config.train_text_encoder,
            start or {},
        )

    @property
    def of_text_encoder(self) -> AdapterSpec:
        """The spec for the text encoders: always all attention and feed-forward layers, as in kohya's trainer."""
        return replace(self, target_modules="attention_and_feed_forward", patterns=())


@dataclass(frozen=True)
class LayerSpec:
    """Settings of the adapter on one layer; for their meaning see `AdapterSpec`."""

    algorithm: Algorithm
    rank: int
    alpha: float


def choose_layers(
    spec: AdapterSpec, modules: Iterable[tuple[str, nn.Module]], key_of: Callable[[str], str]
) -> dict[str, LayerSpec]:
    """Choose the layers that get adapters, by path in the order of `modules`.

    Args:
        spec: the adapters to train.
        modules: the paths and modules of a model.
        key_of: a function that returns the key in a file for a layer's path.

    Raises:
        CrucibleError: as `select_layers`.
    """
    modules = list(modules)
    keys = {path: key_of(path) for path, module in modules if is_adaptable(module)} if spec.start else {}
    going_on = {path: _spec_of(spec.start[key]) for path, key in keys.items() if key in spec.start}
    if going_on:
        return going_on
    chosen = select_layers(modules, spec.target_modules, spec.patterns)
    return {
        path: LayerSpec(spec.algorithm, pattern.rank or spec.rank, pattern.alpha or spec.alpha)
        for path, pattern in chosen.items()
    }


def _spec_of(adapter: LayerTensors) -> LayerSpec:
    rank = rank_of(adapter) or 1  # a LoKr of two whole matrices has no rank and ignores it
    return LayerSpec(cast(Algorithm, kind_of(adapter)), rank, rank * scale_of(adapter))
