"""Reading facts about a model from its diffusers folder, without loading any weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers

from ...config import ModelFacts
from ...demo import MODEL_DIR as DEMO_MODEL_DIR
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES
from ..diffusion.name_warnings import distilled_warning, warning_of_name
from ..diffusion.objective import PredictionType
from .families import FAMILIES, Family
from .families.base import Config
from .pipeline_files import INDEX

_PREDICTIONS = ("epsilon", "v_prediction")
_NOT_FROM_PROMPTS = {
    "Inpaint": "a model for inpainting",
    "Fill": "a model for inpainting",
    "InstructPix2Pix": "a model for editing",
    "Kontext": "a model for editing",
    "Edit": "a model for editing",
    "Layered": "a model that splits images into layers",
    "Img2Img": "a refiner, which only finishes images that another model started",
    "Upscale": "a model that makes images larger",
    "Depth2Img": "a model that generates images from depth maps",
    "Control": "a model that is guided by another image",
    "Redux": "a model that varies another image",
    "Omni": "a model that starts from other images",
    "ImageToVideo": "a model that animates another image",
    "VideoToVideo": "a model that changes a video",
    "VACE": "a model that is guided by another video",
    "Animate": "a model that is guided by another video",
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
        family: what is particular to its kind of pipeline.
        index: the content of its model_index.json.
        scheduler: the config of its scheduler.
        file: the single file that has its weights, if these are not in the folder.
    """

    path: Path
    name: str
    facts: ModelFacts
    native_resolution: int
    warnings: tuple[str, ...]
    family: Family
    index: Config
    scheduler: Config
    file: Path | None = None

    @property
    def kinds(self) -> dict[str, str]:
        """The class of each part, by the part's name in the pipeline; parts that the model lacks are left out."""
        return _kinds(self.index)


def read_folder(folder: Path, name: str = "") -> DiffusersFolder:
    """Read the facts about a model from its diffusers folder.

    Args:
        folder: a folder with a model_index.json.
        name: the name to show to the user; that of the folder by default.

    Raises:
        CrucibleError: the folder contains a model that cannot be trained here, or its files are damaged.
    """
    name = name or folder.absolute().name
    index = _read(folder, INDEX)
    pipeline = str(index.get("_class_name", "something else"))
    family = FAMILIES.get(pipeline)
    denoiser = _read(folder, f"{family.denoiser if family else 'unet'}/config.json")
    scheduler = _read(folder, "scheduler/scheduler_config.json")
    vae = _read(folder, "vae/config.json")
    _require_from_prompts(folder, pipeline, family, denoiser, vae)
    if family is None:
        raise CrucibleError(
            f"{folder} contains a {pipeline}, which the command line cannot train through diffusers. It trains "
            f"{', '.join(FAMILIES)}; every other image model can be trained inside ComfyUI."
        )
    _require_supported(folder, family, index)
    prediction = PredictionType.FLOW.value if family.is_flow else scheduler.get("prediction_type", "epsilon")
    if not family.is_flow and prediction not in _PREDICTIONS:
        raise CrucibleError(
            f"{folder} contains a {pipeline} whose scheduler says that it predicts {prediction}. Models of this kind "
            f"are trained if they predict {' or '.join(_PREDICTIONS)}. If the model is one of these, correct "
            "prediction_type in its scheduler/scheduler_config.json."
        )
    id = "demo" if folder == DEMO_MODEL_DIR else family.architecture(denoiser, prediction)
    architecture = ARCHITECTURES[id]
    side = denoiser.get("sample_size")
    native = side * _pixels_per_latent(vae) if isinstance(side, int) else architecture.native_resolution
    facts = ModelFacts(architecture.id, native, architecture.cfg, prediction)
    warnings = _warnings(name, family, denoiser, scheduler)
    return DiffusersFolder(folder, name, facts, native, warnings, family, index, scheduler)


def _pixels_per_latent(vae: Config) -> int:
    return 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)


def _kinds(index: Config) -> dict[str, str]:
    return {
        name: str(entry[1])
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    }


def _require_from_prompts(folder: Path, pipeline: str, family: Family | None, denoiser: Config, vae: Config) -> None:
    what = next((what for part, what in _NOT_FROM_PROMPTS.items() if part in pipeline), None)
    channels = int(vae.get("latent_channels") or vae.get("z_dim") or 4) * (family.packed if family else 1)
    found = denoiser.get("in_channels", channels)
    if what is None and found > channels:
        what = f"a model that needs {found - channels} additional channels, as inpainting and editing models do"
    if what is not None:
        raise CrucibleError(
            f"{folder} contains a {pipeline}: {what}. It cannot be trained on images with captions. Train on the "
            "text-to-image model of the same family instead. Such a LoRA often works with this model too, because the "
            "two share their layers."
        )


def _require_supported(folder: Path, family: Family, index: Config) -> None:
    if reason := family.unsuitable(index):
        raise CrucibleError(f"{folder} contains a {family.pipeline} that cannot be trained here. {reason}")
    if not hasattr(diffusers, family.pipeline):
        raise CrucibleError(
            f"{folder} contains a {family.pipeline}, which the installed diffusers {diffusers.__version__} does not "
            "have, so the model cannot be loaded. Update it: pip install -U diffusers."
        )


def _warnings(name: str, family: Family, denoiser: Config, scheduler: Config) -> tuple[str, ...]:
    if warning := warning_of_name(name):
        return (warning,)
    if sign := family.distilled(denoiser, scheduler):
        return (distilled_warning(f"The base model {name} has {sign}, a model"),)
    return ()


def _read(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CrucibleError(
            f"{folder / name} is damaged ({error}), so the model cannot be loaded. Download or copy the file again."
        ) from error
    return content if isinstance(content, dict) else {}
