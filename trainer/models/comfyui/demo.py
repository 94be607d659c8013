"""The demo model as MODEL, CLIP and VAE, built from ComfyUI's own classes.

ComfyUI recognises a checkpoint by its layer sizes, and it knows no model this small. Its classes are therefore
instantiated here with the sizes from the demo model's diffusers folder.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from ...demo import MODEL_DIR

CLIP_VOCABULARY = 49408
"""The number of rows in the token embedding of ComfyUI's CLIP, regardless of the tokenizer's vocabulary."""


class CrucibleDemo(comfy.supported_models.SD15):
    """The configuration of a tiny SD1.5. Reports show the name of this class as the name of the model."""


def load_demo_model(disable_dynamic: bool = False) -> Any:
    """Load the demo model as MODEL. ComfyUI calls this again to reload the model (`cached_patcher_init`)."""
    manager = comfy.model_management
    weights = _weights("unet")
    config = CrucibleDemo(_unet_config(_config("unet")))
    to_native = comfy.utils.unet_to_diffusers(config.unet_config)
    load_device = manager.get_torch_device()
    dtype = manager.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    config.set_inference_dtype(dtype, manager.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes))
    model = config.get_model({})
    patcher = _patcher_class(disable_dynamic)(model, load_device, manager.unet_offload_device())
    native = {to_native[name]: weight for name, weight in weights.items()}
    model.load_model_weights(native, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_demo_model, ())
    return patcher


def load_demo_clip(disable_dynamic: bool = False) -> Any:
    """Load the demo model's text encoder as CLIP."""
    config = _config("text_encoder")
    weights = {
        name if name.startswith("text_model.") else f"text_model.{name}": weight
        for name, weight in _weights("text_encoder").items()
    }
    embedding = "text_model.embeddings.token_embedding.weight"
    weights[embedding] = torch.nn.functional.pad(
        weights[embedding], (0, 0, 0, CLIP_VOCABULARY - len(weights[embedding]))
    )
    weights["text_projection.weight"] = torch.eye(config["hidden_size"])
    tokenizer = partial(
        comfy.sd1_clip.SDTokenizer,
        tokenizer_path=str(MODEL_DIR / "tokenizer"),
        embedding_size=config["hidden_size"],
    )
    text_encoder = partial(
        comfy.sd1_clip.SDClipModel,
        textmodel_json_config=config,
        special_tokens={
            "start": config["bos_token_id"],
            "end": config["eos_token_id"],
            "pad": config["eos_token_id"],
        },
        return_projected_pooled=False,
    )
    target = ClipTarget(
        partial(comfy.sd1_clip.SD1Tokenizer, tokenizer=tokenizer),
        partial(comfy.sd1_clip.SD1ClipModel, clip_model=text_encoder),
    )
    clip = comfy.sd.CLIP(
        target,
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=[weights],
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (
        lambda disable_dynamic=False: load_demo_clip(disable_dynamic).patcher,
        (),
    )
    return clip


def load_demo_vae() -> Any:
    """Load the demo model's VAE."""
    config = _config("vae")
    channels = config["block_out_channels"]
    sizes = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": config["sample_size"],
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae = comfy.sd.VAE(
        sd=_weights("vae"), config={"params": {"ddconfig": sizes, "embed_dim": config["latent_channels"]}}
    )
    vae.patcher.cached_patcher_init = (lambda disable_dynamic=False: load_demo_vae().patcher, ())
    return vae


def _patcher_class(disable_dynamic: bool) -> Any:
    return comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher


def _unet_config(config: dict[str, Any]) -> dict[str, Any]:
    """Convert diffusers' configuration of a UNet to ComfyUI's."""
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    down = [int("CrossAttn" in kind) for kind in config["down_block_types"]]
    up = [int("CrossAttn" in kind) for kind in reversed(config["up_block_types"])]
    return {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "channel_mult": [width // channels[0] for width in channels],
        "num_res_blocks": [layers] * len(channels),
        "transformer_depth": [depth for depth in down for _ in range(layers)],
        "transformer_depth_output": [depth for depth in up for _ in range(layers + 1)],
        "transformer_depth_middle": 1,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_checkpoint": False,
        "legacy": False,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }


def _config(part: str) -> dict[str, Any]:
    return json.loads((MODEL_DIR / part / "config.json").read_text(encoding="utf-8"))


def _weights(part: str) -> dict[str, Tensor]:
    (file,) = Path(MODEL_DIR / part).glob("*.safetensors")
    return comfy.utils.load_torch_file(str(file))
