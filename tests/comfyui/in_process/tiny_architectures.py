"""Small models of every architecture: ComfyUI's own classes with few narrow blocks, and matching text embeddings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import comfy.ldm.anima.model
import comfy.model_base
import comfy.supported_models
import models
import torch
from comfy.model_base import ModelType
from lora_crucible.models.diffusion.inputs import Caption, Inputs, Latent
from lora_crucible.models.examples import CachedExample

TEXT = 48
"""The width of the text embeddings."""

TOKENS = 8


def mask() -> torch.Tensor:
    """Return the attention mask of a caption that fills all but two tokens."""
    return torch.tensor([[1] * (TOKENS - 2) + [0] * 2])


Extra = Callable[[torch.Generator], dict[str, Any]]
"""A function that returns the extra outputs of a text encoder, beside the token embeddings."""


@dataclass(frozen=True)
class Tiny:
    """A small model of one architecture.

    Attributes:
        kind, config_class: names of classes in `comfy.model_base` and `comfy.supported_models`.
        config: the sizes of the model.
        latent: the shape of a latent.
        extra: the extra outputs of the text encoder.
        architecture: the id of the architecture, if it differs from the key in `TINY`.
        options: additional arguments of the model's constructor.
        while_building: a context manager to enter while the model is built.
    """

    kind: str
    config_class: str
    config: dict[str, Any]
    latent: tuple[int, ...] = (16, 8, 8)
    extra: Extra = field(default=lambda draw: {})
    architecture: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    while_building: Callable[[], AbstractContextManager[Any]] = nullcontext

    def model(self) -> Any:
        """Return a MODEL with random weights."""
        kind, config_class = getattr(comfy.model_base, self.kind), getattr(comfy.supported_models, self.config_class)
        with self.while_building():
            return models.build(partial(kind, **self.options), config_class, dict(self.config))

    def samples(self, count: int) -> list[CachedExample]:
        """Return random samples like those of `cache_inputs`."""
        return [self._sample(index) for index in range(count)]

    def _sample(self, index: int) -> CachedExample:
        draw = torch.Generator().manual_seed(index)
        latent = torch.randn(self.latent, generator=draw)
        encoded = [[torch.randn(1, TOKENS, TEXT, generator=draw), self.extra(draw)]]
        inputs = Inputs((partial(Latent, latent),), (Caption("", partial(list, encoded)),))
        return CachedExample(f"{index}.png", latent.shape, inputs)


def pooled(width: int) -> Extra:
    return lambda draw: {"pooled_output": torch.randn(1, width, generator=draw)}


def masked(draw: torch.Generator) -> dict[str, Any]:
    return {"attention_mask": mask()}


def _unet(**changes: Any) -> dict[str, Any]:
    return {
        **models.SDXL,
        "channel_mult": [1, 2],
        "num_res_blocks": [1, 1],
        "transformer_depth": [0, 1],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [0, 0, 1, 1],
        "context_dim": TEXT,
        "num_classes": None,
        "adm_in_channels": None,
        **changes,
    }


_SD15 = _unet(use_linear_in_transformer=False, num_heads=2, num_head_channels=-1)
_SD2 = _unet()
_SDXL = _unet(num_classes="sequential", adm_in_channels=32 + 6 * 256)

_SD3 = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": 32,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": TEXT, "out_features": 128},
    },
    "num_patches": 256,
    "pos_embed_max_size": 16,
    "qk_norm": "rms",
    "pos_embed_scaling_factor": None,
    "x_block_self_attn_layers": [0],
}
_FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 32,
    "context_in_dim": TEXT,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_FLUX2 = {
    **_FLUX,
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "axes_dim": [8, 8, 8, 8],
    "theta": 2000,
    "patch_size": 1,
    "qkv_bias": False,
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
}
_CHROMA = {
    **{key: value for key, value in _FLUX.items() if key != "guidance_embed"},
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "vec_in_dim": None,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 64,
    "n_layers": 1,
}
_Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 384,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 3,
    "n_kv_heads": 3,
    "axes_dims": [32, 48, 48],
    "axes_lens": [64, 64, 64],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "qk_norm": True,
    "cap_feat_dim": TEXT,
    "pad_tokens_multiple": 32,
}
_LUMINA = {
    **_Z_IMAGE,
    "n_kv_heads": 1,
    "rope_theta": 10000.0,
    "z_image_modulation": False,
    "time_scale": 1.0,
    "pad_tokens_multiple": None,
}
_QWEN_IMAGE = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "num_layers": 1,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (8, 12, 12),
}
_AURAFLOW = {
    "max_seq": 64,
    "cond_seq_dim": TEXT,
    "n_double_layers": 1,
    "n_layers": 2,
    "dim": 64,
    "n_heads": 2,
    "global_conddim": 64,
}
_PIXART = {
    "image_model": "pixart_sigma",
    "num_heads": 2,
    "patch_size": 2,
    "hidden_size": 72,
    "in_channels": 4,
    "depth": 1,
    "caption_channels": TEXT,
    "model_max_length": TOKENS,
    "micro_condition": False,
    "input_size": 16,
    "pe_interpolation": 1,
}
_HUNYUAN_DIT = {
    "image_model": "hydit",
    "depth": 2,
    "hidden_size": 64,
    "num_heads": 2,
    "text_states_dim": TEXT,
    "text_states_dim_t5": 32,
    "text_len": TOKENS,
    "text_len_t5": TOKENS,
}
_HIDREAM = {
    "image_model": "hidream",
    "attention_head_dim": 32,
    "axes_dims_rope": [16, 8, 8],
    "caption_channels": [TEXT, TEXT],
    "max_resolution": [16, 16],
    "in_channels": 16,
    "llama_layers": [0, 1],
    "num_attention_heads": 2,
    "num_routed_experts": 4,
    "num_activated_experts": 4,  # all, because a changing choice would make the loss discontinuous
    "num_layers": 1,
    "num_single_layers": 1,
    "out_channels": 16,
    "patch_size": 2,
    "text_emb_dim": 32,
}
_COSMOS = {
    "image_model": "cosmos_predict2",
    "max_img_h": 16,
    "max_img_w": 16,
    "max_frames": 4,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "concat_padding_mask": True,
    "crossattn_emb_channels": TEXT,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "min_fps": 1,
    "max_fps": 30,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 1,
    "num_heads": 2,
    "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0,
    "extra_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False,
}
_WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 64,
    "out_dim": 16,
    "in_dim": 16,
    "num_heads": 2,
    "ffn_dim": 128,
    "num_layers": 1,
    "patch_size": (1, 2, 2),
    "freq_dim": 32,
    "text_dim": TEXT,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
}
_HUNYUAN_VIDEO = {
    "image_model": "hunyuan_video",
    "in_channels": 16,
    "patch_size": [1, 2, 2],
    "out_channels": 16,
    "vec_in_dim": 32,
    "axes_dim": [8, 12, 12],
    "meanflow": False,
    "context_in_dim": TEXT,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 256,
    "qkv_bias": True,
    "byt5": False,
    "guidance_embed": True,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
_LTXV = {
    "image_model": "ltxv",
    "in_channels": 128,
    "cross_attention_dim": 64,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "caption_channels": TEXT,
    "num_layers": 1,
}


def _hunyuan_dit(draw: torch.Generator) -> dict[str, Any]:
    return {
        "attention_mask": mask(),
        "conditioning_mt5xl": torch.randn(1, TOKENS, 32, generator=draw),
        "attention_mask_mt5xl": mask(),
    }


def _hidream(draw: torch.Generator) -> dict[str, Any]:
    return {**pooled(32)(draw), "conditioning_llama3": torch.randn(1, 2, TOKENS, TEXT, generator=draw)}


def _anima(draw: torch.Generator) -> dict[str, Any]:
    return {"t5xxl_ids": torch.arange(TOKENS), "t5xxl_weights": torch.ones(TOKENS)}


def _small_text_adapter() -> AbstractContextManager[Any]:
    """Patch Anima's text adapter to small sizes, which are not part of the model's config."""
    sizes = {"source_dim": TEXT, "target_dim": TEXT, "model_dim": TEXT, "num_layers": 1, "num_heads": 2}
    adapter = comfy.ldm.anima.model.LLMAdapter
    return mock.patch.object(comfy.ldm.anima.model, "LLMAdapter", partial(adapter, **sizes))


TINY = {
    "sd15": Tiny("BaseModel", "SD15", _SD15, (4, 8, 8)),
    "sd2": Tiny("BaseModel", "SD20", _SD2, (4, 8, 8)),
    "sd2_v": Tiny("BaseModel", "SD20", _SD2, (4, 8, 8), options={"model_type": ModelType.V_PREDICTION}),
    "sdxl": Tiny("SDXL", "SDXL", _SDXL, (4, 8, 8), extra=pooled(32)),
    "sd3": Tiny("SD3", "SD3", _SD3, extra=pooled(32)),
    "flux1": Tiny("Flux", "Flux", _FLUX, extra=pooled(32)),
    "flux2": Tiny("Flux2", "Flux2", _FLUX2, (128, 4, 4)),
    "chroma": Tiny("Chroma", "Chroma", _CHROMA),
    "lumina2": Tiny("Lumina2", "Lumina2", _LUMINA, extra=masked),
    "z_image": Tiny("Lumina2", "ZImage", _Z_IMAGE, extra=masked),
    "qwen_image": Tiny("QwenImage", "QwenImage", _QWEN_IMAGE, (16, 1, 8, 8), extra=masked),
    "auraflow": Tiny("AuraFlow", "AuraFlow", _AURAFLOW, (4, 8, 8)),
    "pixart_alpha": Tiny(
        "PixArt", "PixArtAlpha", {**_PIXART, "image_model": "pixart_alpha", "micro_condition": True}, (4, 48, 48)
    ),
    "pixart_sigma": Tiny("PixArt", "PixArtSigma", _PIXART, (4, 48, 48)),
    "hunyuan_dit": Tiny("HunyuanDiT", "HunyuanDiT", _HUNYUAN_DIT, (4, 8, 8), extra=_hunyuan_dit),
    "hidream": Tiny("HiDream", "HiDream", _HIDREAM, extra=_hidream),
    "cosmos_predict2": Tiny("CosmosPredict2", "CosmosT2IPredict2", _COSMOS, (16, 1, 8, 8)),
    "anima": Tiny(
        "Anima",
        "Anima",
        {**_COSMOS, "image_model": "anima"},
        (16, 1, 8, 8),
        extra=_anima,
        while_building=_small_text_adapter,
    ),
    "wan": Tiny("WAN21", "WAN21_T2V", _WAN, (16, 1, 8, 8)),
    "wan22_5b": Tiny("WAN22", "WAN22_T2V", {**_WAN, "in_dim": 48, "out_dim": 48}, (48, 1, 4, 4), architecture="wan"),
    "hunyuan_video": Tiny("HunyuanVideo", "HunyuanVideo", _HUNYUAN_VIDEO, (16, 1, 8, 8), extra=pooled(32)),
    "ltxv": Tiny("LTXV", "LTXV", _LTXV, (128, 1, 4, 4), extra=masked),
}
