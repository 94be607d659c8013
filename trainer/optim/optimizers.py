"""Optimizers, created from the libraries that provide them."""

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
    """A group of weights that are trained with the same learning rate; the log uses its `name`."""

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float


def parameter_groups(adapters: Adapters, config: ResolvedConfig) -> list[ParameterGroup]:
    """Group the weights of adapters by learning rate: those of the model and those of the text encoders.

    With LoRA+ (Hayou et al. 2024, arXiv:2402.12354), matrices A and B are separate groups too, and B has
    `loraplus_ratio` times the learning rate of A.
    """
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
    """Create the optimizer that the config names, with a parameter group (and its `name`) for each of `groups`.

    Raises:
        CrucibleError: the optimizer cannot train these groups, or cannot run on this device.
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

        # Relative steps would replace the learning rate and its schedule.
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

        # Its authors recommend both for diffusion models; without the safeguard, a warmup distorts its estimate.
        return Prodigy(parameters, use_bias_correction=True, safeguard_warmup=True, **settings)
    from schedulefree import AdamWScheduleFree

    # Its weight averaging depends on the warmup.
    return AdamWScheduleFree(parameters, warmup_steps=config.lr_warmup_steps, **settings)


def effective_learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """Return the learning rate of the next step by the name of the group, including Prodigy's own estimate."""
    return {group["name"]: group["lr"] * group.get("d", 1.0) for group in optimizer.param_groups}


def _require_cuda(groups: Sequence[ParameterGroup]) -> None:
    device = groups[0].parameters[0].device
    if device.type != "cuda":
        raise CrucibleError(
            f"optimizer is adamw_8bit, but the training runs on {device.type}, and 8-bit AdamW only works on CUDA. Set "
            "optimizer to adamw, or to adafactor, which needs little memory on any device."
        )


def _require_one_rate(groups: Sequence[ParameterGroup]) -> None:
    if len({group.learning_rate for group in groups}) > 1:
        rates = ", ".join(f"{group.name} {group.learning_rate:g}" for group in groups)
        raise CrucibleError(
            f"optimizer is prodigy, but the parts of the LoRA have different learning rates ({rates}). Prodigy finds "
            "one learning rate for all of them. Set the same rate for all parts, or choose another optimizer."
        )
