"""The families of diffusers pipelines that are trained, with a module for each."""

from __future__ import annotations

from .base import Family
from .flux import Flux
from .qwen_image import QwenImage
from .stable_diffusion import StableDiffusion, StableDiffusionXL
from .stable_diffusion_3 import StableDiffusion3
from .wan import Wan
from .z_image import ZImage

FAMILIES: dict[str, Family] = {
    family.pipeline: family
    for family in (StableDiffusion(), StableDiffusionXL(), StableDiffusion3(), Flux(), QwenImage(), ZImage(), Wan())
}
"""The families by the name of their pipeline's class in diffusers."""
