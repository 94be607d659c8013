"""Models of ComfyUI's own classes with random weights, small enough for a CPU."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import torch
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.models.diffusion.inputs import Caption, Inputs, Latent
from lora_crucible.models.examples import CachedExample

SDXL = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "context_dim": 64,
    "num_classes": "sequential",
    "adm_in_channels": 32 + 6 * 256,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "use_checkpoint": False,
    "legacy": False,
    "num_heads": -1,
    "num_head_channels": 16,
}
SDXL_CONTEXT, SDXL_POOLED = 64, 32


def build(kind: type, config_class: type, config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """Return a MODEL with random weights, scaled so that activations stay near one."""
    with torch.inference_mode():
        torch.manual_seed(0)
        settings = config_class(config)
        settings.unet_config.update(config)
        settings.set_inference_dtype(dtype, torch.float32 if dtype != torch.float32 else None)
        model = kind(settings)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape) * fan_in**-0.5)
        if getattr(model.diffusion_model, "pos_embed", None) is not None:
            model.diffusion_model.pos_embed.normal_()  # otherwise uninitialised until a checkpoint is loaded
        device = torch.device("cpu")
        return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)


def sdxl() -> Any:
    return build(comfy.model_base.SDXL, comfy.supported_models.SDXL, dict(SDXL))


def base_model(model: Any) -> ComfyUIBaseModel:
    """Return a base model for samples from `random_samples`; its encoders exist but are never called."""
    clip = SimpleNamespace(cond_stage_model=torch.nn.Module())
    return ComfyUIBaseModel(model, clip, SimpleNamespace(first_stage_model=object()))


def random_samples(
    model: Any, count: int, *, channels: int, context: int, pooled: int | None, size: int = 8, tokens: int = 77
) -> list[CachedExample]:
    """Return samples like those of `cache_inputs`, but with random latents and text embeddings."""
    samples = []
    for index in range(count):
        draw = torch.Generator().manual_seed(index)
        latent = torch.randn(channels, size, size, generator=draw)
        extra = {} if pooled is None else {"pooled_output": torch.randn(1, pooled, generator=draw)}
        encoded = [[torch.randn(1, tokens, context, generator=draw), extra]]
        inputs = Inputs((partial(Latent, latent),), (Caption("", partial(list, encoded)),))
        samples.append(CachedExample(f"{index}.png", latent.shape, inputs))
    return samples


def encoded_samples(base_model: Any, dataset: ImageDataset, resolution: int = 64) -> list[CachedExample]:
    return base_model.cache_inputs(dataset.examples(resolution), TensorCache(None), 0.0, True, lambda *_: None)


def latent_of(sample: CachedExample) -> torch.Tensor:
    return sample.inputs.draw(0)[0].values
