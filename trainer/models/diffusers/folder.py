"""Reading facts about a model from its diffusers folder, without loading any weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import ModelFacts
from ...demo import MODEL_DIR as DEMO_MODEL_DIR
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES
from ..diffusion.name_warnings import distilled_warning, warning_of_name

_ARCHITECTURES = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}
_PREDICTIONS = ("epsilon", "v_prediction")
_NOT_FROM_PROMPTS = {
    "Inpaint": "a model for inpainting",
    "InstructPix2Pix": "a model for editing",
    "Img2Img": "a refiner, which only finishes images that another model started",
    "Upscale": "a model that makes images larger",
    "Depth2Img": "a model that generates images from depth maps",
}
"""Descriptions of pipelines that need more than a prompt, by a part of the pipeline's class name."""


@dataclass(frozen=True)
class DiffusersFolder:
    """A folder with a model in diffusers' format.

    Attributes:
        path: the folder.
        name: the name to show to the user.
        facts: the facts that training settings are chosen from.
        native_resolution: the side length, in pixels, of the images that the model was made for.
        warnings: reasons why the model is unlikely to train well; empty for most models.
    """

    path: Path
    name: str
    facts: ModelFacts
    native_resolution: int
    warnings: tuple[str, ...]


def read_folder(base_model: str) -> DiffusersFolder:
    """Read the facts about a model from its diffusers folder.

    Args:
        base_model: a folder with a model_index.json, or "demo".

    Raises:
        CrucibleError: there is no such folder, or it contains a model that cannot be trained here.
    """
    folder = DEMO_MODEL_DIR if base_model == "demo" else Path(base_model).expanduser()
    name = "demo" if base_model == "demo" else folder.absolute().name
    if not (folder / "model_index.json").is_file():
        raise CrucibleError(
            f"base_model is {base_model!r}, but there is no model_index.json in {folder.absolute()}. The command "
            "line trains on models in diffusers' folder format (SD1.5, SDXL) and on 'demo'. Choose such a folder, or "
            "train on a single .safetensors checkpoint inside ComfyUI."
        )
    kind = str(_read(folder, "model_index.json").get("_class_name", "something else"))
    unet, scheduler = _read(folder, "unet/config.json"), _read(folder, "scheduler/scheduler_config.json")
    _require_from_prompts(folder, kind, unet)
    prediction = scheduler.get("prediction_type", "epsilon")
    if kind not in _ARCHITECTURES or prediction not in _PREDICTIONS:
        raise CrucibleError(
            f"{folder} contains a {kind} that predicts {prediction}. The command line trains only SD1.5 and SDXL; "
            "every other image model can be trained inside ComfyUI."
        )
    architecture = ARCHITECTURES["demo" if base_model == "demo" else _ARCHITECTURES[kind]]
    factor = 2 ** (len(_read(folder, "vae/config.json").get("block_out_channels", [0] * 4)) - 1)
    side = unet.get("sample_size")
    native = side * factor if isinstance(side, int) else architecture.native_resolution
    facts = ModelFacts(architecture.id, native, architecture.cfg, prediction)
    return DiffusersFolder(folder, name, facts, native, _warnings(name, unet, scheduler))


def _require_from_prompts(folder: Path, kind: str, unet: dict[str, Any]) -> None:
    what = next((what for part, what in _NOT_FROM_PROMPTS.items() if part in kind), None)
    channels = unet.get("in_channels", 4)
    if what is None and channels != 4:
        what = f"a model that needs {channels - 4} additional channels, as inpainting and editing models do"
    if what is not None:
        raise CrucibleError(
            f"{folder} contains a {kind}: {what}. It cannot be trained on images with captions. Train on the "
            "text-to-image model of the same family instead. Such a LoRA often works with this model too, because the "
            "two share their layers."
        )


def _warnings(name: str, unet: dict[str, Any], scheduler: dict[str, Any]) -> tuple[str, ...]:
    if warning := warning_of_name(name):
        return (warning,)
    sampler = str(scheduler.get("_class_name", ""))
    if unet.get("time_cond_proj_dim") is not None or sampler.startswith(("LCM", "TCD")):
        return (distilled_warning(f"The base model {name} has the settings of an LCM ({sampler}), a model"),)
    return ()


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CrucibleError(
            f"{folder / name} is damaged ({error}), so the model cannot be loaded. Download or copy the file again."
        ) from error
    return content if isinstance(content, dict) else {}
