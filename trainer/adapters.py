"""Which layers are trained, and the LoRA weights on them.

Base models name their layers by the path of the module ("down_blocks.0.attentions.0.….to_q"); files name them by key
("lora_unet_down_blocks_0_…"). `Adapters` holds peft's layers by file key, the name that is the same for both kinds
of base model: so the same seed gives the same weights on either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from torch import Tensor, nn

from .errors import CrucibleError
from .formats.lora_file import LoraLayer
from .rng import generator

ADAPTER_NAME = "default"

_ATTENTION = re.compile(r"(^|[._])(attn\d*|attention)([._]|$)|(^|\.)single_blocks\.\d+\.linear[12]$")
_FEED_FORWARD = re.compile(r"(^|[._])(ff|ffn|mlp|feed_forward)(_context)?([._]|$)")


@dataclass(frozen=True)
class AdapterSpec:
    """A LoRA to be trained: `alpha / rank` scales its output, `dropout` (0..1) drops entries of its input."""

    rank: int
    alpha: float
    dropout: float
    target_modules: str


def is_adaptable(module: nn.Module) -> bool:
    """Whether a LoRA can be put on this module. By shape, not class: ComfyUI's quantized linear is no nn.Linear."""
    return hasattr(module, "in_features") or isinstance(module, nn.Conv2d)


def select_layers(modules: Iterable[tuple[str, nn.Module]], target_modules: str) -> list[str]:
    """Paths of the layers that `target_modules` names, in the order of `modules`.

    Raises:
        CrucibleError: the model has no such layer.
    """
    adaptable = {path: module for path, module in modules if is_adaptable(module)}

    def chosen(path: str) -> bool:
        if target_modules == "linear_and_convolution":
            return True
        attention = _ATTENTION.search(path) is not None
        feed_forward = _FEED_FORWARD.search(path) is not None
        return not isinstance(adaptable[path], nn.Conv2d) and (
            attention or (feed_forward and target_modules == "attention_and_feed_forward")
        )

    paths = [path for path in adaptable if chosen(path)]
    if not paths:
        examples = ", ".join(list(adaptable)[:5]) or "none at all"
        raise CrucibleError(
            f"target_modules is {target_modules!r}, but this base model has no such layers, so nothing could be "
            f"trained. Layers that could carry a LoRA: {examples}. Choose another value of target_modules."
        )
    return paths


def peft_config(spec: AdapterSpec, paths: list[str]) -> LoraConfig:
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # peft multiplies by it; kohya's alphas are no integers
        lora_dropout=spec.dropout,
        target_modules=paths,
        bias="none",
    )


class Adapters:
    """The trained weights of a run: peft's LoRA layers by file key."""

    def __init__(self, layers: Mapping[str, PeftLoraLayer], alpha: float) -> None:
        self._layers = dict(sorted(layers.items()))
        self._alpha = alpha

    def __len__(self) -> int:
        return len(self._layers)

    def _pairs(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        for key, layer in self._layers.items():
            yield key, layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight

    @property
    def device(self) -> torch.device:
        return self.parameters()[0].device

    def parameters(self) -> list[nn.Parameter]:
        return [weight for _, down, up in self._pairs() for weight in (down, up)]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """A at random (Kaiming uniform, as peft and kohya do), B zero: at step 0 the model is the base.

        Each layer's numbers depend on the seed and its file key alone.
        """
        for key, down, up in self._pairs():
            fresh = torch.empty(down.shape)
            nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator(seed, "init", key))
            down.copy_(fresh)
            up.zero_()

    @torch.no_grad()
    def round_to(self, dtype: torch.dtype) -> None:
        """Round the weights to what a file of `dtype` holds, so that what is sampled last is what is saved."""
        for weight in self.parameters():
            weight.copy_(weight.to(dtype))

    def layers(self) -> dict[str, LoraLayer]:
        """Copies of the weights on the CPU, by file key."""

        def copied(weight: Tensor) -> Tensor:
            return weight.detach().to("cpu", copy=True)

        return {key: LoraLayer(copied(down), copied(up), self._alpha) for key, down, up in self._pairs()}


def adapter_layers(module: nn.Module) -> dict[str, PeftLoraLayer]:
    """peft's layers inside a module, by path."""
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, PeftLoraLayer)}
