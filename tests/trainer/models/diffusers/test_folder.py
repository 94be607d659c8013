"""Reading a diffusers folder without loading any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lora_crucible.config import ModelFacts
from lora_crucible.demo import MODEL_DIR
from lora_crucible.errors import CrucibleError
from lora_crucible.models.diffusers.folder import read_folder


def folder(path: Path, kind: str = "StableDiffusionXLPipeline", **parts: dict[str, Any]) -> Path:
    contents = {
        "": {"_class_name": kind},
        "unet": {"in_channels": 4, "sample_size": 128, **parts.get("unet", {})},
        "vae": {"block_out_channels": [1, 2, 4, 8]},
        "scheduler": {"_class_name": "EulerDiscreteScheduler", **parts.get("scheduler", {})},
    }
    names = {"": "model_index.json", "scheduler": "scheduler_config.json"}
    for name, content in contents.items():
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name / names.get(name, "config.json")).write_text(json.dumps(content))
    return path


def test_facts_of_an_ordinary_model(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path / "sdxl", scheduler={"prediction_type": "v_prediction"}))
    assert found.facts == ModelFacts("sdxl", 1024, 6.0, "v_prediction")
    assert (found.name, found.warnings) == ("sdxl", ())
    demo = read_folder(MODEL_DIR, "demo")
    assert (demo.name, demo.facts, demo.warnings) == ("demo", ModelFacts("demo", 64, 4.0, "epsilon"), ())


@pytest.mark.parametrize(
    ("kind", "unet", "expected"),
    [
        ("StableDiffusionXLImg2ImgPipeline", {}, "a refiner"),
        ("StableDiffusionInpaintPipeline", {"in_channels": 9}, "a model for inpainting"),
        ("StableDiffusionInstructPix2PixPipeline", {"in_channels": 8}, "a model for editing"),
        ("StableDiffusionPipeline", {"in_channels": 9}, "5 additional channels"),
        ("QwenImageEditPlusPipeline", {}, "a model for editing"),
        ("FluxFillPipeline", {}, "a model for inpainting"),
        ("FluxKontextPipeline", {}, "a model for editing"),
        ("WanImageToVideoPipeline", {}, "a model that animates another image"),
        ("PixArtSigmaPipeline", {}, "trains StableDiffusionPipeline, .*WanPipeline; every other .* inside ComfyUI"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(
    tmp_path: Path, kind: str, unet: dict[str, Any], expected: str
) -> None:
    with pytest.raises(CrucibleError, match=expected):
        read_folder(folder(tmp_path / "model", kind, unet=unet))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sdxl-turbo", {}),
        ("mine", {"scheduler": {"_class_name": "LCMScheduler"}}),
        ("mine", {"unet": {"time_cond_proj_dim": 256}}),
    ],
)
def test_distilled_models_are_warned_of(tmp_path: Path, name: str, parts: dict[str, dict[str, Any]]) -> None:
    (warning,) = read_folder(folder(tmp_path / name, **parts)).warnings
    assert name in warning
    assert "distilled" in warning


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    (tmp_path / "model" / "unet" / "config.json").write_text("{")
    with pytest.raises(CrucibleError, match=r"config\.json is damaged"):
        read_folder(path)
