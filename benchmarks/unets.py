"""The two UNets of vs_native.py, with random weights, for ComfyUI and diffusers, and the operations in a step."""

from __future__ import annotations

from typing import Any

import torch

PREFIX = "model.diffusion_model."
CONTEXT_TOKENS = 77

# Configurations of diffusers' UNet2DConditionModel.
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "sample_size": 16,
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 128,
        "attention_head_dim": 8,
    },
    "sd15": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
}


def native_config(model: str) -> dict[str, Any]:
    """Return ComfyUI's configuration of the same UNet."""
    sizes = SIZES[model]
    channels, layers = sizes["block_out_channels"], sizes["layers_per_block"]
    down = [int("CrossAttn" in kind) for kind in sizes["down_block_types"]]
    up = [int("CrossAttn" in kind) for kind in reversed(sizes["up_block_types"])]
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": channels[0],
        "channel_mult": [width // channels[0] for width in channels],
        "num_res_blocks": [layers] * len(channels),
        "transformer_depth": [depth for depth in down for _ in range(layers)],
        "transformer_depth_output": [depth for depth in up for _ in range(layers + 1)],
        "transformer_depth_middle": 1,
        "context_dim": sizes["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_checkpoint": False,
        "legacy": False,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }


def native_names(model: str) -> dict[str, str]:
    """Return ComfyUI's name of each parameter by diffusers' name."""
    import comfy.utils

    return comfy.utils.unet_to_diffusers(native_config(model))


def make_weights(model: str, weights: str) -> None:
    """Write random weights, the same in every call, in the layout of a single-file checkpoint."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SIZES[model])
    names = native_names(model)
    save_file({PREFIX + names[name]: weight for name, weight in unet.state_dict().items()}, weights)


def load_native(model: str, weights: str) -> Any:
    """Load a MODEL that can be reloaded, because ComfyUI's node trains on a second copy of the weights."""
    import comfy.sd

    if model == "sd15":
        return comfy.sd.load_diffusion_model(weights)
    return load_small(weights)


def load_small(weights: str, disable_dynamic: bool = False) -> Any:
    """Build a small UNet from ComfyUI's classes directly, because ComfyUI does not recognise one this small."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils

    config = comfy.supported_models.SD15(native_config("small"))
    config.set_inference_dtype(torch.float32, None)
    unet = config.get_model({})
    unet.load_model_weights(comfy.utils.load_torch_file(weights), PREFIX)
    device = comfy.model_management.get_torch_device()
    patcher = comfy.model_patcher.ModelPatcher(unet, device, device)
    patcher.cached_patcher_init = (load_small, (weights,))
    return patcher


def load_text_encoder() -> Any:
    """Return a CLIP with SD1.5's text encoder at full size and random weights."""
    import comfy.sd
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    state_dict = CLIPTextModel(config).state_dict()
    # transformers 5 leaves out the prefix by which ComfyUI recognises a CLIP.
    named = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in state_dict.items()}
    return comfy.sd.load_text_encoder_state_dicts([named])


def load_diffusers(model: str, weights: str) -> Any:
    """Load the same UNet as diffusers' class, without a second copy in memory."""
    from diffusers import UNet2DConditionModel
    from safetensors import safe_open

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SIZES[model])
    names = native_names(model)
    with safe_open(weights, framework="pt") as file:
        state_dict = {name: file.get_tensor(PREFIX + names[name]).clone() for name in unet.state_dict()}
    unet.load_state_dict(state_dict, assign=True)
    return unet


def floor(model: str, pixels: int) -> float:
    """Return the GFLOP for one image: the forward pass, and the backward pass to activations but not to weights."""
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SIZES[model]).requires_grad_(False)
        latent = torch.zeros(1, 4, pixels // 8, pixels // 8, requires_grad=True)
        context = torch.zeros(1, CONTEXT_TOKENS, SIZES[model]["cross_attention_dim"])
        with FlopCounterMode(display=False) as counter:
            unet(latent, torch.zeros(1), context).sample.sum().backward()
    return counter.get_total_flops() / 1e9
