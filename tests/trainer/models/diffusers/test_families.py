"""What families read from the configs of a folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_pipelines
from lora_crucible.errors import CrucibleError
from lora_crucible.models.diffusers.families import FAMILIES
from lora_crucible.models.diffusers.folder import read_folder

FLUX = FAMILIES["FluxPipeline"]


def folder(path: Path, pipeline: str, denoiser: dict[str, Any], **index: Any) -> Path:
    contents = {
        "model_index.json": {"_class_name": pipeline, **index},
        f"{FAMILIES[pipeline].denoiser}/config.json": denoiser,
        "vae/config.json": {"latent_channels": 16, "block_out_channels": [1, 2, 4, 8]},
        "scheduler/scheduler_config.json": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    }
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("scheduler", "side", "expected"),
    [
        (tiny_pipelines.FLUX_SHIFT, 1024, math.exp(1.15)),
        (tiny_pipelines.FLUX_SHIFT, 256, math.exp(0.5)),
        (tiny_pipelines.QWEN_SHIFT, 1328, math.exp(0.5 + 0.4 * (6889 - 256) / (8192 - 256))),
        ({**tiny_pipelines.FLUX_SHIFT, "time_shift_type": "linear"}, 1024, 1.15),
        ({"shift": 3.0}, 1024, 3.0),
        ({"shift": 3.0}, 2048, 6.0),
        ({"flow_shift": 5.0}, 1024, 5.0),
        ({"shift": 1.0}, 512, 1.0),
    ],
)
def test_the_shift_is_that_of_the_scheduler(scheduler: dict[str, Any], side: int, expected: float) -> None:
    assert FLUX.shift(scheduler, side**2, 1024**2) == pytest.approx(expected, rel=1e-4)


def test_further_channels_are_refused(tmp_path: Path) -> None:
    assert read_folder(folder(tmp_path / "dev", "FluxPipeline", {"in_channels": 64})).facts.architecture == "flux1"
    with pytest.raises(CrucibleError, match="needs 64 additional channels"):
        read_folder(folder(tmp_path / "control", "FluxPipeline", {"in_channels": 128}))


def test_two_experts_are_refused_by_name(tmp_path: Path) -> None:
    one = {"transformer_2": [None, None]}
    assert read_folder(folder(tmp_path / "wan21", "WanPipeline", {}, **one)).facts.architecture == "wan"
    two = {"transformer_2": ["diffusers", "WanTransformer3DModel"]}
    with pytest.raises(CrucibleError, match="two experts, one for high and one for low noise"):
        read_folder(folder(tmp_path / "wan22", "WanPipeline", {}, **two))


def test_the_layout_of_schnell_is_warned_of(tmp_path: Path) -> None:
    dev = folder(tmp_path / "dev", "FluxPipeline", {"guidance_embeds": True})
    assert read_folder(dev).warnings == ()
    (warning,) = read_folder(folder(tmp_path / "fast", "FluxPipeline", {"guidance_embeds": False})).warnings
    assert "layout of FLUX.1 schnell" in warning
    assert "distilled" in warning


def test_an_older_diffusers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{read_folder.__module__}.diffusers", SimpleNamespace(__version__="0.33.1"))
    with pytest.raises(CrucibleError, match=r"ZImagePipeline, which the installed diffusers 0\.33\.1 does not have"):
        read_folder(folder(tmp_path / "model", "ZImagePipeline", {}))


@pytest.mark.parametrize(
    ("prediction", "linear", "expected"),
    [("epsilon", False, "sd15"), ("epsilon", True, "sd2"), ("v_prediction", True, "sd2_v")],
)
def test_generations_of_stable_diffusion(prediction: str, linear: bool, expected: str) -> None:
    family = FAMILIES["StableDiffusionPipeline"]
    assert family.architecture({"use_linear_projection": linear}, prediction) == expected
