"""Trainers name the base model in many ways."""

from __future__ import annotations

import pytest
from lora_crucible.formats.stated_architecture import stated_architectures


@pytest.mark.parametrize(
    ("metadata", "ids"),
    [
        ({"modelspec.architecture": "flux-1-dev/lora"}, ("flux1",)),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, ("sdxl",)),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, ("sdxl",)),
        ({"ss_base_model_version": "sd_v1"}, ("sd15",)),
        ({"base_model": "black-forest-labs/FLUX.2-klein-4B"}, ("flux2",)),
        ({"baseModel": "Illustrious"}, ("sdxl",)),
        ({"base_model_name": "Qwen/Qwen-Image-Edit-2509"}, ("qwen_image",)),
        ({"ss_base_model_version": "hunyuan_video_1.5"}, ()),
        ({"base_model": "Wan-AI/Wan2.1-T2V-14B"}, ("wan",)),
        ({"base_model": "THUDM/CogVideoX-5b"}, ()),
        ({"modelspec.architecture": "sdxl", "base_model": "flux"}, ("sdxl", "flux1")),
        ({"base_model": ""}, ()),
        ({}, ()),
    ],
)
def test_base_models_in_metadata(metadata, ids):
    assert stated_architectures(metadata) == ids
