"""From what the user wrote as base_model to the folder of an image model in diffusers' format."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ...demo import MODEL_DIR as DEMO_MODEL_DIR
from ...errors import CrucibleError
from ...files.hub import DownloadProgress
from ...files.hub_models import HubModels, find_model
from ...formats.header import ENDINGS
from ...messages.suggestions import nearest_path
from .folder import DiffusersFolder, read_folder
from .pipeline_files import INDEX, wanted_files
from .single_file import open_single_file

log = logging.getLogger(__name__)

DEMO = "demo"
"""The name that stands for the model that comes with the package."""

MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
}
"""The new names of models whose first owner has taken them off the hub, by the old name in lower case."""


def open_source(
    base_model: str,
    *,
    download: bool = False,
    progress: DownloadProgress = lambda done, total, file: None,
    announce: Callable[[str], None] = log.info,
) -> DiffusersFolder:
    """Find an image model in diffusers' format and read the facts about it.

    Args:
        base_model: a folder with a model_index.json, owner/name on the hub, a single .safetensors file, or `demo` for
            the model that comes with the package. A model that is already in Hugging Face's own cache is used.
        download: whether the model may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: there is no such model, it cannot be trained here, it is missing and may not be downloaded, or
            the download fails.
    """
    if base_model == DEMO:
        return read_folder(DEMO_MODEL_DIR, DEMO)
    written = Path(base_model).expanduser()
    if base_model.lower().endswith(ENDINGS) and not written.exists():
        raise CrucibleError(
            f"base_model is {base_model!r}, but there is no such file, so there is nothing to train on. "
            f"{nearest_path(written)} Correct the path, or set COMFYUI_PATH to a ComfyUI that has the file in its "
            "model folders, where it is found by its name."
        )
    path = find_model(base_model, IMAGE_MODELS, download=download, progress=progress, announce=announce)
    if path.is_file():
        return open_single_file(path, download=download, progress=progress, announce=announce)
    if not (path / INDEX).is_file():
        raise CrucibleError(
            f"base_model is {base_model!r}, but there is no {INDEX} in {path.absolute()}. Through diffusers, the "
            "command line trains on folders in diffusers' format, which have one, on owner/name on the Hugging Face "
            "hub, on single .safetensors checkpoints, and on 'demo'. Choose one of these."
        )
    return read_folder(path, path.absolute().name if Path(base_model).expanduser().exists() else base_model)


def _in_cache(repo: str) -> Path | None:
    """Return the folder of a model that Hugging Face's own cache has, with the weights of all of its parts."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repo, INDEX)
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()]
    return folder if wanted_files([INDEX, *names]) else None


IMAGE_MODELS = HubModels(
    "image model",
    "an image model in diffusers' format",
    "image_models",
    _in_cache,
    wanted_files,
    "weights in .safetensors for each part of a diffusers pipeline",
    INDEX,
    read_folder,
    MOVED,
)
