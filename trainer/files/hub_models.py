"""Base models by path or by name on the hub: where they are on this computer, and when they are downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CrucibleError
from ..messages.suggestions import nearest_names
from .hub import DownloadProgress, Repository, download_repository, is_repository_name, wanted_of_folder


@dataclass(frozen=True)
class HubModels:
    """A kind of base models on the hub.

    Attributes:
        kind: what such a model is in messages to the user.
        in_words: the kind and its format in messages to the user.
        shelf: the name of the folder that downloads are kept in.
        in_cache: a function from the name of a model to its folder in Hugging Face's own cache; None if the model is
            not there with its weights.
        wanted, weights, marker: as for `Repository`.
        check: a function that looks at the folder of a model with this name, as for `Repository`.
        moved: the new names of models that have another name now.
    """

    kind: str
    in_words: str
    shelf: str
    in_cache: Callable[[str], Path | None]
    wanted: Callable[[Collection[str]], Collection[str]] = wanted_of_folder
    weights: str = "model.safetensors"
    marker: str = "config.json"
    check: Callable[[Path, str], object] = lambda folder, name: None
    moved: Mapping[str, str] = field(default_factory=dict)


def find_model(
    base_model: str, models: HubModels, *, download: bool, progress: DownloadProgress, announce: Callable[[str], None]
) -> Path:
    """Return the file or folder of a base model, downloading it from the hub only if the user asks for it.

    Args:
        base_model: a path, or owner/name on the hub. A model that is already in Hugging Face's own cache is used.
        models: the kind of models.
        download: whether the model may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: there is no such file or folder, the model is missing and may not be downloaded, it has another
            name now, or the download fails.
    """
    written = Path(base_model).expanduser()
    if written.exists():
        return written
    if not may_be_on_hub(base_model):
        raise CrucibleError(
            f"base_model is {base_model!r}, but there is no folder {written.absolute()}. {_nearest(written)} Set "
            f"base_model to the folder of {models.in_words}, or to owner/name on the Hugging Face hub."
        )
    owner, name = base_model.split("/")
    folder = _downloads() / models.shelf / f"{owner}--{name}"
    if (folder / models.marker).is_file():
        return folder
    cached = models.in_cache(base_model)
    if cached is not None:
        return cached
    if successor := models.moved.get(base_model.lower()):
        raise CrucibleError(
            f"base_model is {base_model!r}. It is not on this computer, and the hub no longer has a {models.kind} of "
            f"that name: the same model is now {successor}. Set base_model to {successor}."
        )
    if not download:
        from huggingface_hub import constants

        raise CrucibleError(
            f"base_model is {base_model!r}. There is no folder of that name, and if it is meant as a model on the "
            "Hugging Face hub, it is not on this computer yet. Nothing is downloaded unless you ask for it: start "
            f"again with --download to fetch it from {constants.ENDPOINT} (another address can be set in the "
            "environment variable HF_ENDPOINT). Its size is said before the download begins."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    repository = Repository(
        base_model,
        models.kind,
        wanted=models.wanted,
        weights=models.weights,
        marker=models.marker,
        check=lambda partial: models.check(partial, base_model),
    )
    return download_repository(repository, folder, progress, announce)


def may_be_on_hub(written: str) -> bool:
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


def _downloads() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "lora_crucible"
