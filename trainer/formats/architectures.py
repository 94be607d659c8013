"""What is known about each architecture: the form of its LoRA file and its usual settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Naming = Literal["native", "diffusers", "original"]
"""Whose names of a model's layers: ComfyUI's, which mostly are the original code's; diffusers'; or the original code's
where ComfyUI has others."""

Prefix = Literal["lora_unet_", "diffusion_model.", "transformer."]
"""What a layer's name in a file starts with. "lora_unet_" is kohya's form: underscores, lora_down, lora_up, alpha. The
others are PEFT's: dots, lora_A, lora_B, and alpha multiplied into lora_B."""


Form = Literal["auto", "kohya", "diffusers", "peft", "comfyui"]
"""Of a LoRA file; auto is the one that most programs read for the architecture."""

FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        modelspec, implementation, base_model_version: modelspec.architecture, modelspec.implementation and
            ss_base_model_version as sd-scripts and musubi-tuner write them, by which other tools filter LoRA lists.
            Plain words where neither trains the architecture.
        native_resolution: a side in pixels.
        cfg: the guidance scale for samples.
        prefix, naming: how layers are named in a file: the form that most other programs read. It holds for LoRA and
            DoRA; LoHa and LoKr have kohya's form and ComfyUI's names everywhere.
        diffusers_loader: the class in `diffusers.loaders` that reads the file; None where diffusers reads none.
    """

    id: str
    name: str
    modelspec: str
    implementation: str
    base_model_version: str
    native_resolution: int
    cfg: float
    prefix: Prefix = "lora_unet_"
    naming: Naming = "native"
    diffusers_loader: str | None = None

    @property
    def is_kohya(self) -> bool:
        """Whether files are in kohya's form rather than PEFT's."""
        return self.prefix == "lora_unet_"


_STABILITY_AI = "https://github.com/Stability-AI/generative-models"
_COMFYUI = "https://github.com/comfyanonymous/ComfyUI"

_ROWS = (
    Architecture(
        id="sd15",
        name="Stable Diffusion 1.5",
        modelspec="stable-diffusion-v1/lora",
        implementation="diffusers",
        base_model_version="sd_v1",
        native_resolution=512,
        cfg=7.0,
        naming="diffusers",
        diffusers_loader="StableDiffusionLoraLoaderMixin",
    ),
    Architecture(
        id="sd2",
        name="Stable Diffusion 2.x",
        modelspec="stable-diffusion-v2-512/lora",
        implementation="diffusers",
        base_model_version="sd_v2",
        native_resolution=512,
        cfg=7.0,
        naming="diffusers",
        diffusers_loader="StableDiffusionLoraLoaderMixin",
    ),
    Architecture(
        id="sd2_v",
        name="Stable Diffusion 2.x (v-prediction)",
        modelspec="stable-diffusion-v2-768-v/lora",
        implementation="diffusers",
        base_model_version="sd_v2_v",
        native_resolution=768,
        cfg=7.0,
        naming="diffusers",
        diffusers_loader="StableDiffusionLoraLoaderMixin",
    ),
    Architecture(
        id="sdxl",
        name="Stable Diffusion XL",
        modelspec="stable-diffusion-xl-v1-base/lora",
        implementation=_STABILITY_AI,
        base_model_version="sdxl_base_v1-0",
        native_resolution=1024,
        cfg=6.0,
        diffusers_loader="StableDiffusionXLLoraLoaderMixin",
    ),
    Architecture(
        id="sd3",
        name="Stable Diffusion 3 and 3.5",
        modelspec="stable-diffusion-3/lora",
        implementation=_STABILITY_AI,
        base_model_version="sd3",
        native_resolution=1024,
        cfg=4.5,
        prefix="transformer.",
        naming="diffusers",
        diffusers_loader="SD3LoraLoaderMixin",
    ),
    Architecture(
        id="flux1",
        name="Flux.1",
        modelspec="flux-1-dev/lora",
        implementation="https://github.com/black-forest-labs/flux",
        base_model_version="flux1",
        native_resolution=1024,
        cfg=1.0,
        diffusers_loader="FluxLoraLoaderMixin",
    ),
    Architecture(
        id="flux2",
        name="Flux.2",
        modelspec="Flux.2-dev/lora",
        implementation="https://github.com/black-forest-labs/flux2",
        base_model_version="flux_2_dev",
        native_resolution=1024,
        cfg=1.0,
        prefix="diffusion_model.",
        diffusers_loader="Flux2LoraLoaderMixin",
    ),
    Architecture(
        id="chroma",
        name="Chroma",
        modelspec="chroma/lora",
        implementation="https://huggingface.co/lodestones/Chroma",
        base_model_version="chroma",
        native_resolution=1024,
        cfg=4.0,
        diffusers_loader="FluxLoraLoaderMixin",
    ),
    Architecture(
        id="lumina2",
        name="Lumina Image 2.0",
        modelspec="lumina-2/lora",
        implementation="https://github.com/Alpha-VLLM/Lumina-Image-2.0",
        base_model_version="lumina2",
        native_resolution=1024,
        cfg=4.0,
    ),
    Architecture(
        id="z_image",
        name="Z-Image",
        modelspec="Z-Image/lora",
        implementation="https://github.com/Tongyi-MAI/Z-Image",
        base_model_version="z_image",
        native_resolution=1024,
        cfg=4.0,
        prefix="diffusion_model.",
        naming="diffusers",
        diffusers_loader="ZImageLoraLoaderMixin",
    ),
    Architecture(
        id="qwen_image",
        name="Qwen-Image",
        modelspec="Qwen-Image/lora",
        implementation="https://github.com/QwenLM/Qwen-Image",
        base_model_version="qwen_image",
        native_resolution=1328,
        cfg=4.0,
        prefix="diffusion_model.",
        diffusers_loader="QwenImageLoraLoaderMixin",
    ),
    Architecture(
        id="auraflow",
        name="AuraFlow",
        modelspec="auraflow-v1/lora",
        implementation="https://github.com/cloneofsimo/minRF",
        base_model_version="auraflow",
        native_resolution=1024,
        cfg=3.5,
        prefix="transformer.",
        naming="diffusers",
        diffusers_loader="AuraFlowLoraLoaderMixin",
    ),
    Architecture(
        id="pixart_alpha",
        name="PixArt-alpha",
        modelspec="pixart-alpha/lora",
        implementation="https://github.com/PixArt-alpha/PixArt-alpha",
        base_model_version="pixart_alpha",
        native_resolution=1024,
        cfg=4.5,
    ),
    Architecture(
        id="pixart_sigma",
        name="PixArt-Sigma",
        modelspec="pixart-sigma/lora",
        implementation="https://github.com/PixArt-alpha/PixArt-sigma",
        base_model_version="pixart_sigma",
        native_resolution=1024,
        cfg=4.5,
    ),
    Architecture(
        id="hunyuan_dit",
        name="Hunyuan-DiT",
        modelspec="hunyuan-dit/lora",
        implementation="https://github.com/Tencent/HunyuanDiT",
        base_model_version="hunyuan_dit",
        native_resolution=1024,
        cfg=5.0,
    ),
    Architecture(
        id="hidream",
        name="HiDream-I1",
        modelspec="hidream-i1/lora",
        implementation="https://github.com/HiDream-ai/HiDream-I1",
        base_model_version="hidream_i1",
        native_resolution=1024,
        cfg=5.0,
        prefix="diffusion_model.",
        diffusers_loader="HiDreamImageLoraLoaderMixin",
    ),
    Architecture(
        id="cosmos_predict2",
        name="Cosmos-Predict2",
        modelspec="cosmos-predict2/lora",
        implementation="https://github.com/nvidia-cosmos/cosmos-predict2",
        base_model_version="cosmos_predict2",
        native_resolution=1024,
        cfg=4.0,
        prefix="diffusion_model.",
    ),
    Architecture(
        id="anima",
        name="Anima",
        modelspec="anima/lora",
        implementation=_COMFYUI,
        base_model_version="anima",
        native_resolution=1024,
        cfg=4.0,
        prefix="diffusion_model.",
        diffusers_loader="AnimaLoraLoaderMixin",
    ),
    Architecture(
        id="wan",
        name="Wan 2.1 and 2.2 (text to video)",
        modelspec="wan2.1/lora",
        implementation="https://github.com/Wan-Video/Wan2.1",
        base_model_version="wan",
        native_resolution=768,
        cfg=5.0,
        prefix="diffusion_model.",
        diffusers_loader="WanLoraLoaderMixin",
    ),
    Architecture(
        id="hunyuan_video",
        name="HunyuanVideo (text to video)",
        modelspec="hunyuan-video/lora",
        implementation="https://github.com/Tencent/HunyuanVideo",
        base_model_version="hunyuan_video",
        native_resolution=768,
        cfg=1.0,
        prefix="diffusion_model.",
        naming="original",
        diffusers_loader="HunyuanVideoLoraLoaderMixin",
    ),
    Architecture(
        id="ltxv",
        name="LTX-Video",
        modelspec="ltx-video/lora",
        implementation="https://github.com/Lightricks/LTX-Video",
        base_model_version="ltx_video",
        native_resolution=768,
        cfg=3.0,
        prefix="diffusion_model.",
        diffusers_loader="LTXVideoLoraLoaderMixin",
    ),
    # The model that comes with the package: SD1.5 in small.
    Architecture(
        id="demo",
        name="the demo model (Stable Diffusion 1.5 in small)",
        modelspec="stable-diffusion-v1/lora",
        implementation="diffusers",
        base_model_version="sd_v1",
        native_resolution=64,
        cfg=4.0,
        naming="diffusers",
        diffusers_loader="StableDiffusionLoraLoaderMixin",
    ),
    # Anything else that ComfyUI loads. Its native names are by construction what its loader looks for.
    Architecture(
        id="unknown",
        name="an architecture without a row of its own",
        modelspec="unknown/lora",
        implementation=_COMFYUI,
        base_model_version="unknown",
        native_resolution=1024,
        cfg=4.0,
    ),
)

ARCHITECTURES: dict[str, Architecture] = {row.id: row for row in _ROWS}
