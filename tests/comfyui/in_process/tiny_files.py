"""The weights of small models as files that ComfyUI's own loaders recognize have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.clip_model
import comfy.ops
import comfy.taesd.taesd
import torch
from tiny_architectures import TINY
from torch import Tensor

_HEADS_OF_128 = {"hidden_size": 128, "num_heads": 1, "axes_dim": [16, 56, 56]}
_ONE_LEVEL = {
    "model_channels": 320,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
}
_COSMOS = {
    "model_channels": 256,
    "num_heads": 16,
    "adaln_lora_dim": 256,
    "crossattn_emb_channels": 1024,
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
}
_PIXART = {"hidden_size": 1152, "num_heads": 16, "caption_channels": 4096}
_WAN = {"dim": 128, "num_heads": 1, "freq_dim": 256, "text_dim": 4096}
AS_FILE: dict[str, dict[str, Any]] = {
    "sd15": {**_ONE_LEVEL, "context_dim": 768, "num_heads": 8},
    "sd2": {**_ONE_LEVEL, "context_dim": 1024, "num_head_channels": 64},
    "sd3": {},
    "flux1": _HEADS_OF_128,
    "flux2": {**_HEADS_OF_128, "axes_dim": [32, 32, 32, 32]},
    "pixart_alpha": _PIXART,
    "pixart_sigma": _PIXART,
    "hunyuan_dit": {
        "hidden_size": 128,
        "num_heads": 16,
        "text_states_dim": 1024,
        "text_states_dim_t5": 2048,
        "text_len": 77,
        "text_len_t5": 256,
    },
    "cosmos_predict2": _COSMOS,
    "wan": _WAN,
    "wan22_5b": _WAN,
    "hunyuan_video": {**_HEADS_OF_128, "vec_in_dim": 768},
    "ltxv": {"num_attention_heads": 32, "attention_head_dim": 2, "caption_channels": 4096},
}
"""The sizes that ComfyUI does not read from a file but takes as given, with which it recognizes a small one."""

TOO_LARGE = {
    "sd2_v": "velocity is told from a weight of the 1280 channels wide middle of the whole model",
    "sdxl": "recognized by 10 transformer blocks at 1,280 channels",
    "chroma": "a guidance layer of 5 times 5,120 channels",
    "lumina2": "recognized by 2,304 channels",
    "z_image": "recognized by 3,840 channels",
    "qwen_image": "24 heads of 128 channels, whatever the file says",
    "auraflow": "3,072 channels, whatever the file says",
    "hidream": "16 and 32 blocks of 2,560 channels, whatever the file says",
    "anima": "a text adapter of 6 blocks at 1,024 channels, whatever the file says",
}
"""Why a file of the other architectures would be too large for a test."""

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "projection_dim": 768,
}


def tiny_model(name: str, **changes: Any) -> Any:
    """Return the MODEL of an architecture in the sizes of `AS_FILE`, with random weights."""
    tiny = TINY[name]
    return replace(tiny, config={**tiny.config, **AS_FILE[name], **changes}).model()


def weights_of(model: Any) -> dict[str, Tensor]:
    """Return the weights of a MODEL as the file of a diffusion model has them."""
    return {key: weight.clone().contiguous() for key, weight in model.model.diffusion_model.state_dict().items()}


def diffusion_model(name: str, **changes: Any) -> dict[str, Tensor]:
    return weights_of(tiny_model(name, **changes))


def clip_l() -> dict[str, Tensor]:
    """Return random weights of CLIP-L, the smallest text encoder that ComfyUI recognizes, in float16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = comfy.clip_model.CLIPTextModel(CLIP_L, torch.float32, "cpu", comfy.ops.manual_cast)
        weights = model.state_dict()
        for key, weight in weights.items():
            if weight.ndim == 1:
                weight.fill_(0.0 if key.endswith("bias") else 1.0)
            else:
                weight.normal_(std=0.02)
    return {key: weight.half().contiguous() for key, weight in weights.items()}


def vae(channels: int = 4) -> dict[str, Tensor]:
    """Return random weights of TAESD, a VAE that is small in every file, for both directions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = comfy.taesd.taesd.TAESD(latent_channels=channels).state_dict()
        for key, weight in weights.items():  # ComfyUI's layers are not initialized
            if weight.ndim == 4:
                weight.normal_(std=weight[0].numel() ** -0.5)
            elif key.endswith("bias"):
                weight.zero_()
    return {key: weight.clone() for key, weight in weights.items()}
