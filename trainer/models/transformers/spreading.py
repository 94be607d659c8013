"""Adapters on a model that accelerate has spread over several devices and main memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...adapters.peft_layers import AdaptedLayer, adapter_parameters
from ...errors import CrucibleError


def place_adapters(layers: Iterable[AdaptedLayer]) -> None:
    """Give adapters memory on the devices that their layers are computed on; the values come with `initialise`.

    The weights of layers in main memory are only there when they are computed, so an adapter cannot follow them.

    Raises:
        CrucibleError: a DoRA needs the weight of such a layer.
    """
    for layer in layers:
        base: Any = layer.adapter.get_base_layer()
        device = getattr(getattr(base, "_hf_hook", None), "execution_device", None)
        if device is None:
            continue
        parts = dict(adapter_parameters(layer.adapter))
        if "lora_magnitude_vector" in parts and base.weight.device.type == "meta":
            raise CrucibleError(
                "The algorithm is dora, which needs the weights of all trained layers on a graphics card, but the "
                "model is too big for that, so some of its layers are in main memory. Set algorithm to lora, or "
                "load_in_4bit to true, or choose a smaller model."
            )
        for name, part in layer.adapter.named_children():  # peft has left them without values, as their layer is
            if name != "base_layer" and any(weight.device.type == "meta" for weight in part.parameters()):
                part.to_empty(device=device)
