"""From what the user wrote as base_model to the folder of a language model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ...demo.text import model_folder
from ...files.hub import DownloadProgress
from ...files.hub_models import HubModels, find_model

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
    return find_model(base_model, LANGUAGE_MODELS, download=download, progress=progress, announce=announce)


def _in_cache(repo: str) -> Path | None:
    """Return the folder of a model that Hugging Face's own cache has, with its weights."""
    from huggingface_hub import try_to_load_from_cache

    for weights in ("model.safetensors", "model.safetensors.index.json"):
        found = try_to_load_from_cache(repo, weights)
        config = try_to_load_from_cache(repo, "config.json")
        if isinstance(found, str) and isinstance(config, str):
            return Path(config).parent
    return None


LANGUAGE_MODELS = HubModels("language model", "a language model in transformers' format", "language_models", _in_cache)
