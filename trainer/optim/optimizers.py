"""The optimizers, from the libraries that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..errors import CrucibleError
from ..formats.layer_names import is_of_text_encoder


@dataclass(frozen=True)
class ParameterGroup:
    """Weights that are trained with one learning rate; `name` is what the log calls them."""

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float


def parameter_groups(adapters: Adapters, config: ResolvedConfig) -> list[ParameterGroup]:
    """Model and text encoders, each with its own learning rate; with LoRA+ (Hayou et al. 2024, arXiv:2402.12354) also
    apart by factor, B with `loraplus_ratio` times the rate of A."""
    groups: dict[str, list[nn.Parameter]] = {}
    rates: dict[str, float] = {}
    for key, part, parameter in adapters.named_parameters():
        of_text = is_of_text_encoder(key)
        second = config.loraplus_ratio != 1 and part == "lora_B"
        name = ("text encoder" if of_text else "model") + (" B" if second else "")
        rate = config.text_encoder_learning_rate if of_text else config.learning_rate
        assert rate is not None
        rates[name] = rate * (config.loraplus_ratio if second else 1)
        groups.setdefault(name, []).append(parameter)
    return [ParameterGroup(name, parameters, rates[name]) for name, parameters in groups.items()]


def make_optimizer(groups: Sequence[ParameterGroup], config: ResolvedConfig) -> Optimizer:
    """The optimizer that the config names, with a parameter group (and its `name`) for each of `groups`.

    Raises:
        CrucibleError: the optimizer cannot train these groups, or not on this device.
    """
    parameters: list[dict[str, Any]] = [
        {
            "name": group.name,
            "params": list(group.parameters),
            "lr": group.learning_rate,
            "weight_decay": config.weight_decay,
        }
        for group in groups
    ]
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": (config.adam_beta1, config.adam_beta2)}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Its own steps would take the place of the learning rate and its schedule.
        return Adafactor(parameters, lr=config.learning_rate, scale_parameter=False, relative_step=False)
    if config.optimizer == "adamw_8bit":
        _require_cuda(groups)
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters, **settings)
    if config.optimizer == "lion":
        from lion_pytorch import Lion

        return Lion(parameters, **settings)
    if config.optimizer == "prodigy":
        _require_one_rate(groups)
        from prodigyopt import Prodigy

        # Both are its authors' advice for diffusion models; without the safeguard a warmup misleads its estimate.
        return Prodigy(parameters, use_bias_correction=True, safeguard_warmup=True, **settings)
    from schedulefree import AdamWScheduleFree

    # Its average of the weights has to know the warmup.
    return AdamWScheduleFree(parameters, warmup_steps=config.lr_warmup_steps, **settings)


def effective_learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """How far the next step goes, by the name of the group: Prodigy's estimate is part of it."""
    return {group["name"]: group["lr"] * group.get("d", 1.0) for group in optimizer.param_groups}


def _require_cuda(groups: Sequence[ParameterGroup]) -> None:
    device = groups[0].parameters[0].device
    if device.type != "cuda":
        raise CrucibleError(
            f"optimizer is adamw_8bit, but the training runs on {device.type}, and 8-bit AdamW is made for CUDA. Set "
            "optimizer to adamw, or to adafactor, which needs little memory on every device."
        )


def _require_one_rate(groups: Sequence[ParameterGroup]) -> None:
    if len({group.learning_rate for group in groups}) > 1:
        rates = ", ".join(f"{group.name} {group.learning_rate:g}" for group in groups)
        raise CrucibleError(
            f"optimizer is prodigy, but the parts of the LoRA have learning rates of their own ({rates}). Prodigy "
            "finds one learning rate for all of them. Give all parts the same, or choose another optimizer."
        )
