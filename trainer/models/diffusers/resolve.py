"""From what the user wrote as base_model to the folder of an image model in diffusers' format."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from ...demo import MODEL_DIR as DEMO_MODEL_DIR
from ...errors import CrucibleError
from ...files.hub import DownloadProgress
from ...files.hub_models import HubModels, find_model
from .folder import INDEX, DiffusersFolder, read_folder
from .weight_files import variant_of

log = logging.getLogger(__name__)

DEMO = "demo"
"""The name that stands for the model that comes with the package."""

_PARTS = ("unet", "transformer", "vae", "text_encoder", "tokenizer", "scheduler", "feature_extractor")
"""The starts of the names of the folders that a pipeline for training needs."""

_WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder")
_SMALL = (".json", ".txt", ".model", ".jinja")

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
        base_model: a folder with a model_index.json, owner/name on the hub, or `demo` for the model that comes with
            the package. A model that is already in Hugging Face's own cache is used.
        download: whether the model may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: there is no such model, it cannot be trained here, it is missing and may not be downloaded, or
            the download fails.
    """
    if base_model == DEMO:
        return read_folder(DEMO_MODEL_DIR, DEMO)
    path = find_model(base_model, IMAGE_MODELS, download=download, progress=progress, announce=announce)
    if not (path / INDEX).is_file():
        raise CrucibleError(
            f"base_model is {base_model!r}, but there is no {INDEX} in {path.absolute()}. Through diffusers, the "
            "command line trains on folders in diffusers' format, which have one, on owner/name on the Hugging Face "
            "hub, on single .safetensors checkpoints, and on 'demo'. Choose one of these."
        )
    return read_folder(path, path.absolute().name if Path(base_model).expanduser().exists() else base_model)


def wanted_files(names: Collection[str]) -> list[str]:
    """Return the files of a repository that a pipeline needs: its configs and tokenizers, and one set of weights in
    safetensors for each of its parts.

    The ordinary weights are chosen if there are any, else those in float16 or another variant.

    Args:
        names: the names of all files.

    Returns:
        The names of the files; none if this is no pipeline of diffusers or a part has no weights in safetensors.
    """
    if INDEX not in names:
        return []
    small = [INDEX]
    weights: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    parts = set()
    for name in names:
        part, _, file = name.partition("/")
        if not file or "/" in file or not part.startswith(_PARTS):
            continue
        if part.startswith(_WITH_WEIGHTS):
            parts.add(part)
        variant = variant_of(file)
        if variant is not None:
            weights[part][variant].append(name)
        elif file.endswith(_SMALL) and not file.endswith((".bin.index.json", ".msgpack.index.json")):
            small.append(name)
    chosen = {part: min(_whole(weights[part]), default=None) for part in parts}
    if not parts or None in chosen.values():
        return []
    return small + [name for part, variant in chosen.items() if variant is not None for name in weights[part][variant]]


def _whole(variants: dict[str, list[str]]) -> list[str]:
    """Return the variants that have weights, and not only an index of them."""
    return [variant for variant, names in variants.items() if any(name.endswith(".safetensors") for name in names)]


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
