"""Tiny pipelines of diffusers' own classes with random weights, of every family that is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import lora_conversion_utils
from lora_crucible.demo import MODEL_DIR
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn

TEXT, POOLED = 48, 32
"""The widths of the text embeddings and of the pooled ones."""

_HEADS = {"num_attention_heads": 2, "attention_head_dim": 32}

_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": TEXT,
}
_LINEAR = {**_UNET, "attention_head_dim": (2, 4), "use_linear_projection": True}
_WAN = {"text_dim": TEXT, "freq_dim": 32, "ffn_dim": 128, "num_layers": 1, **_HEADS}


def z_image_transformer(width: int) -> Any:
    """Return a Z-Image transformer of a width, which must be a multiple of 384."""
    heads = width // 128
    return diffusers.ZImageTransformer2DModel(
        dim=width,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=TEXT,
        axes_dims=[32, 48, 48],
    )


DENOISERS: dict[str, Callable[[], Any]] = {
    "sd15": lambda: diffusers.UNet2DConditionModel(**_UNET, attention_head_dim=2),
    "sd2": lambda: diffusers.UNet2DConditionModel(**_LINEAR),
    "sd2_v": lambda: diffusers.UNet2DConditionModel(**_LINEAR),
    "sdxl": lambda: diffusers.UNet2DConditionModel(
        **_LINEAR,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=POOLED + 6 * 256,
    ),
    "sd3": lambda: diffusers.SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=128,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ),
    "flux1": lambda: diffusers.FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
        **_HEADS,
    ),
    "qwen_image": lambda: diffusers.QwenImageTransformer2DModel(
        num_layers=1, joint_attention_dim=TEXT, axes_dims_rope=(8, 12, 12), **_HEADS
    ),
    "z_image": lambda: z_image_transformer(384),
    "wan": lambda: diffusers.WanTransformer3DModel(**_WAN),
    "wan22_5b": lambda: diffusers.WanTransformer3DModel(**_WAN, in_channels=48, out_channels=48),
}
"""The denoisers, with the sizes of those of ComfyUI's classes in `tiny_architectures`."""

FLUX_SHIFT = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "shift": 3.0,
}
QWEN_SHIFT = {**FLUX_SHIFT, "max_shift": 0.9, "max_image_seq_len": 8192, "shift": 1.0, "shift_terminal": 0.02}


def randomise(module: nn.Module, seed: int = 0) -> Any:
    """Give a module random weights with which activations stay near one."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * parameter[0].numel() ** -0.5)
    return module.eval()


def pipeline(name: str, denoiser: Any = None) -> Any:
    """Return a pipeline of an architecture, with random weights.

    Args:
        name: a key of `DENOISERS`.
        denoiser: the denoiser; by default the tiny one with random weights.
    """
    denoiser = denoiser or randomise(DENOISERS[name]())
    return _PIPELINES[name](denoiser)


def saved(name: str, folder: Path, denoiser: Any = None, dtype: torch.dtype = torch.float32) -> Path:
    """Save a pipeline in a dtype as a folder, and return it."""
    pipeline(name, denoiser).to(dtype=dtype).save_pretrained(folder)
    return folder


def _clip_tokenizer() -> Any:
    return transformers.CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")


def _tokenizer() -> Any:
    """Return a tokenizer with a token for each character."""
    characters = ["<pad>", "</s>", "<unk>", *map(chr, range(32, 127)), "\n"]
    inner = Tokenizer(models.WordLevel({one: index for index, one in enumerate(characters)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return made


def clip(width: int, *, projection: int = 0, layers: int = 2) -> Any:
    """Return a CLIP text encoder of a width."""
    config = transformers.CLIPTextConfig(
        vocab_size=len(_clip_tokenizer()),
        hidden_size=width,
        intermediate_size=32,
        projection_dim=projection or width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=_clip_tokenizer().eos_token_id,
    )
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return randomise(kind(config), 1)


_T5: dict[str, Any] = {"vocab_size": 128, "d_model": TEXT, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}
_QWEN: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": TEXT,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 24,
}


def _vae(channels: int, **more: Any) -> Any:
    blocks = 4
    return randomise(
        diffusers.AutoencoderKL(
            block_out_channels=(8,) * blocks,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            latent_channels=channels,
            norm_num_groups=4,
            layers_per_block=1,
            **more,
        ),
        2,
    )


def _noise(**more: Any) -> Any:
    return diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1, **more
    )


def _flow(**more: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**more)


def _stable_diffusion(unet: Any, **scheduler: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=clip(TEXT),
        tokenizer=_clip_tokenizer(),
        unet=unet,
        scheduler=_noise(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(unet: Any) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=clip(TEXT // 2),
        text_encoder_2=clip(TEXT // 2, projection=POOLED),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=unet,
        scheduler=_noise(),
    )


def _sd3(transformer: Any) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=_flow(shift=3.0),
        vae=_vae(16, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=clip(TEXT // 2, projection=POOLED // 2),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=clip(TEXT // 2, projection=POOLED // 2),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=randomise(transformers.T5EncoderModel(transformers.T5Config(**_T5)), 3),
        tokenizer_3=_tokenizer(),
    )


def _flux(transformer: Any) -> Any:
    return diffusers.FluxPipeline(
        transformer=transformer,
        scheduler=_flow(**FLUX_SHIFT),
        vae=_vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=clip(POOLED),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=randomise(transformers.T5EncoderModel(transformers.T5Config(**_T5)), 3),
        tokenizer_2=_tokenizer(),
    )


def _z_image(transformer: Any) -> Any:
    return diffusers.ZImagePipeline(
        transformer=transformer,
        scheduler=_flow(shift=3.0),
        vae=_vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=randomise(transformers.Qwen3Model(transformers.Qwen3Config(**_QWEN)), 3),
        tokenizer=_tokenizer(),
    )


def _qwen_image(transformer: Any) -> Any:
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            **_QWEN,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": TEXT,
            "fullatt_block_indexes": [0],
        },
    )
    vae = diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return diffusers.QwenImagePipeline(
        transformer=transformer,
        scheduler=_flow(**QWEN_SHIFT),
        vae=randomise(vae, 2),
        text_encoder=randomise(transformers.Qwen2_5_VLForConditionalGeneration(config), 3),
        tokenizer=_tokenizer(),
    )


def _wan(transformer: Any, **vae: Any) -> Any:
    sizes: dict[str, Any] = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, **vae}
    return diffusers.WanPipeline(
        transformer=transformer,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
        ),
        vae=randomise(diffusers.AutoencoderKLWan(**sizes), 2),
        text_encoder=randomise(transformers.UMT5EncoderModel(transformers.UMT5Config(**_T5)), 3),
        tokenizer=_tokenizer(),
        expand_timesteps=bool(vae),
    )


def _wan22_5b(transformer: Any) -> Any:
    return _wan(
        transformer,
        z_dim=48,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        is_residual=True,
        latents_mean=[0.1] * 48,
        latents_std=[1.5] * 48,
    )


_PIPELINES: dict[str, Callable[[Any], Any]] = {
    "sd15": _stable_diffusion,
    "sd2": _stable_diffusion,
    "sd2_v": lambda unet: _stable_diffusion(unet, prediction_type="v_prediction"),
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux1": _flux,
    "qwen_image": _qwen_image,
    "z_image": _z_image,
    "wan": _wan,
    "wan22_5b": _wan22_5b,
}

_FULL_WIDTH, _WIDTH = 3072, 64


def narrowed(function: Any) -> Any:
    """Return a function of diffusers that knows Flux.1's width, for the width of the tiny model."""
    return FunctionType(_narrowed(function.__code__), function.__globals__, function.__name__, function.__defaults__)


def _narrowed(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return constant.replace(co_consts=tuple(map(_narrowed, constant.co_consts)))
    if isinstance(constant, tuple):
        return tuple(map(_narrowed, constant))
    is_width = isinstance(constant, int) and constant in (_FULL_WIDTH, 4 * _FULL_WIDTH)
    return constant * _WIDTH // _FULL_WIDTH if is_width else constant


def narrow_flux_loras(monkeypatch: Any) -> None:
    """Let diffusers' loader read LoRAs of the tiny Flux.1; it only knows the width of the published models."""
    name = "_convert_kohya_flux_lora_to_diffusers"
    converter = narrowed(getattr(lora_conversion_utils, name))
    monkeypatch.setattr(f"diffusers.loaders.lora_pipeline.{name}", converter)
