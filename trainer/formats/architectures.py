"""What is known about each architecture: the form of its LoRA file and its usual settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Naming = Literal["native", "diffusers"]
"""Whose names of a model's layers: the original code's, which ComfyUI uses, or diffusers'."""


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    `modelspec` and `implementation` are the modelspec.* values and `base_model_version` the
    ss_base_model_version that kohya's sd-scripts write for this architecture: other tools filter LoRA lists
    by them. `naming` tells whose layer names the file has, `native_resolution` is a side in pixels, `cfg` the
    guidance scale for samples.
    """

    id: str
    name: str
    modelspec: str
    implementation: str
    base_model_version: str
    native_resolution: int
    cfg: float
    naming: Naming


ARCHITECTURES: dict[str, Architecture] = {
    architecture.id: architecture
    for architecture in (
        Architecture(
            id="sd15",
            name="Stable Diffusion 1.5",
            modelspec="stable-diffusion-v1/lora",
            implementation="diffusers",
            base_model_version="sd_v1",
            native_resolution=512,
            cfg=7.0,
            naming="diffusers",
        ),
        Architecture(
            id="sdxl",
            name="Stable Diffusion XL",
            modelspec="stable-diffusion-xl-v1-base/lora",
            implementation="https://github.com/Stability-AI/generative-models",
            base_model_version="sdxl_base_v1-0",
            native_resolution=1024,
            cfg=6.0,
            naming="native",
        ),
        Architecture(
            id="flux1",
            name="Flux.1",
            modelspec="flux-1-dev/lora",
            implementation="https://github.com/black-forest-labs/flux",
            base_model_version="flux1",
            native_resolution=1024,
            cfg=1.0,
            naming="native",
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
        ),
        # Anything else that ComfyUI loads. Its native names are by construction what its loader looks for.
        Architecture(
            id="unknown",
            name="an architecture without a row of its own",
            modelspec="unknown/lora",
            implementation="https://github.com/comfyanonymous/ComfyUI",
            base_model_version="unknown",
            native_resolution=1024,
            cfg=4.0,
            naming="native",
        ),
    )
}
