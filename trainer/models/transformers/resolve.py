"""From what the user wrote as base_model to the folder of a language model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ...demo.text import model_folder
from ...errors import CrucibleError
from ...files.hub import DownloadProgress, Repository, download_repository, is_repository_name
from ...messages.suggestions import nearest_names

log = logging.getLogger(__name__)

DEMO = "demo"
"""The name that stands for the language model that comes with the package."""


def find_folder(
    base_model: str,
    *,
    download: bool = False,
    progress: DownloadProgress = lambda done, total, file: None,
    announce: Callable[[str], None] = log.info,
) -> Path:
    """Return the folder of a language model, downloading it from the hub only if the user asks for it.

    Args:
        base_model: a folder, owner/name on the hub, or `demo` for the model that comes with the package. A model that
            is already in Hugging Face's own cache is used.
        download: whether the model may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: there is no such folder, the model is missing and may not be downloaded, or the download fails.
    """
    if base_model == DEMO:
        return model_folder()
    written = Path(base_model).expanduser()
    if written.exists():
        return written
    if not _may_be_on_hub(base_model):
        raise CrucibleError(
            f"base_model is {base_model!r}, but there is no folder {written.absolute()}. {_nearest(written)} Set "
            "base_model to the folder of a language model in transformers' format, or to owner/name on the Hugging "
            "Face hub."
        )
    owner, name = base_model.split("/")
    folder = _hub_folder() / "language_models" / f"{owner}--{name}"
    if (folder / "config.json").is_file():
        return folder
    cached = _in_cache(base_model)
    if cached is not None:
        return cached
    if not download:
        from huggingface_hub import constants

        raise CrucibleError(
            f"base_model is {base_model!r}. There is no such folder in {Path.cwd()}, and if it is meant as a model on "
            "the Hugging Face hub, it is not on this computer yet. Nothing is downloaded unless you ask for it: start "
            f"again with --download to fetch it from {constants.ENDPOINT} (another address can be set in the "
            "environment variable HF_ENDPOINT). Its size is said before the download begins."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    return download_repository(Repository(base_model, "language model"), folder, progress, announce)


def _may_be_on_hub(written: str) -> bool:
    """Return whether a text is owner/name rather than a path that does not exist."""
    return is_repository_name(written) and not Path(written.split("/")[0]).exists()


def _nearest(path: Path) -> str:
    """Return a sentence about the nearest folder that exists."""
    missing = path.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    parent = missing.parent
    folders = sorted(child.name for child in parent.iterdir() if child.is_dir() and not child.name.startswith("."))
    if near := nearest_names(missing.name, folders, cutoff=0.6):
        return f"A similar folder exists: {parent / near[0]}."
    found = ", ".join(folders[:5]) + (" …" if len(folders) > 5 else "")
    return f"The nearest folder that exists is {parent}" + (f", with {found} in it." if found else ", which is empty.")


def _hub_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "lora_crucible"


def _in_cache(repo: str) -> Path | None:
    """Return the folder of a model that Hugging Face's own cache has, with its weights."""
    from huggingface_hub import try_to_load_from_cache

    for weights in ("model.safetensors", "model.safetensors.index.json"):
        found = try_to_load_from_cache(repo, weights)
        config = try_to_load_from_cache(repo, "config.json")
        if isinstance(found, str) and isinstance(config, str):
            return Path(config).parent
    return None
