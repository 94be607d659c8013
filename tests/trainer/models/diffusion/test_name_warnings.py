"""Warnings about base models whose names suggest that they are unsuitable for training."""

from __future__ import annotations

import pytest
from lora_crucible.models.diffusion.name_warnings import warning_of_name


@pytest.mark.parametrize(
    "name",
    [
        "sd_xl_turbo_1.0_fp16.safetensors",
        "dreamshaperXL_v21TurboDPMSDE.safetensors",
        "sdxl_lightning_4step.safetensors",
        "flux1-schnell-fp8.safetensors",
        "Hyper-SDXL-8steps.safetensors",
        "juggernautXL_hyper.safetensors",
        "LCM_Dreamshaper_v7",
        "z_image_turbo_bf16.safetensors",
        "flux1-dev-8-step.safetensors",
        "model_dmd2.safetensors",
        "SSD-distilled.safetensors",
    ],
)
def test_distilled_models_are_named_with_what_to_use_instead(name: str) -> None:
    warning = warning_of_name(name)
    assert warning is not None
    assert name in warning
    assert "distilled to generate images in a few steps" in warning
    assert "Train on the model that it was distilled from" in warning


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd_xl_refiner_1.0.safetensors", "a refiner"),
        ("flux1-kontext-dev.safetensors", "a model for editing"),
        ("qwen_image_edit_2509_fp8.safetensors", "a model for editing"),
        ("Qwen-Image-Edit-2511-Q4_K_M.gguf", "a model for editing"),
        ("sd-v1-5-inpainting.safetensors", "a model for inpainting"),
        ("flux1-fill-dev.safetensors", "a model for inpainting"),
    ],
)
def test_models_that_start_from_pictures_are_named(name: str, kind: str) -> None:
    assert kind in str(warning_of_name(name))


@pytest.mark.parametrize(
    "name",
    [
        "v1-5-pruned-emaonly.safetensors",
        "sd_xl_base_1.0.safetensors",
        "flux1-dev.safetensors",
        "flux1-dev-de-distill.safetensors",
        "hyperrealism_v3.safetensors",
        "credits_to_me_20000steps.safetensors",
        "epicrealism.safetensors",
        "qwen_image_bf16.safetensors",
    ],
)
def test_ordinary_models_are_not(name: str) -> None:
    assert warning_of_name(name) is None
