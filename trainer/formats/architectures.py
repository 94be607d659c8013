"""The table of known architectures: the format of their LoRA files and their usual settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Naming = Literal["native", "diffusers", "original"]
"""The program whose layer names a file uses: ComfyUI, whose names are mostly those of the original code; diffusers; or
the original code where ComfyUI's names differ."""

Prefix = Literal["lora_unet_", "diffusion_model.", "transformer."]
"""The start of every layer name in a file. "lora_unet_" stands for kohya's format: underscores, lora_down, lora_up and
alpha. The others stand for PEFT's: dots, lora_A and lora_B, with alpha multiplied into lora_B."""


Form = Literal["auto", "kohya", "diffusers", "peft", "comfyui"]
"""The format of a LoRA file; "auto" is the one that most programs read for the architecture."""

FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Architecture:
    """An architecture that LoRAs can be made for, with its file format and usual settings.

    Attributes:
        id: the name that this package uses in code.
        name: the name that users see.
        modelspec, implementation, base_model_version: the metadata values modelspec.architecture,
            modelspec.implementation and ss_base_model_version as sd-scripts and musubi-tuner write them; other tools
            filter LoRA lists by them. Plain descriptive words if neither tool trains the architecture.
        native_resolution: the side length, in pixels, of the images that the model was made for.
        cfg: the default guidance scale for samples.
        prefix, naming: how layers are named in a file, in the format that most other programs read. They apply to LoRA
            and DoRA; LoHa and LoKr always use kohya's format with ComfyUI's names.
        diffusers_loader: the class in `diffusers.loaders` that reads the file; None if diffusers cannot read it.
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
        """Whether files use kohya's format rather than PEFT's."""
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
    # The model that ships with this package, a tiny SD1.5.
    Architecture(
        id="demo",
        name="the demo model (a tiny Stable Diffusion 1.5)",
        modelspec="stable-diffusion-v1/lora",
        implementation="diffusers",
        base_model_version="sd_v1",
        native_resolution=64,
        cfg=4.0,
        naming="diffusers",
        diffusers_loader="StableDiffusionLoraLoaderMixin",
    ),
    Architecture(
        id="language",
        name="a language model",
        modelspec="language-model/lora",
        implementation="https://github.com/huggingface/transformers",
        base_model_version="language",
        native_resolution=0,
        cfg=1.0,
        prefix="transformer.",
    ),
    # Anything else that ComfyUI loads. ComfyUI's own layer names always work, because its loader looks for them.
    Architecture(
        id="unknown",
        name="an unrecognized architecture",
        modelspec="unknown/lora",
        implementation=_COMFYUI,
        base_model_version="unknown",
        native_resolution=1024,
        cfg=4.0,
    ),
)

ARCHITECTURES: dict[str, Architecture] = {row.id: row for row in _ROWS}

NAMEABLE: tuple[str, ...] = tuple(id for id in ARCHITECTURES if id not in ("demo", "language", "unknown"))
"""The ids of the architectures that users can name."""
