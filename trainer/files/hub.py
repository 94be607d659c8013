"""Downloads of models from the Hugging Face hub, by its own library and with that library's settings."""

from __future__ import annotations

import inspect
import logging
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import CrucibleError

log = logging.getLogger(__name__)

WANTED = ("*.json", "*.txt", "*.csv", "*.jinja", "*.model", "model*.safetensors")
"""Patterns of the files that are downloaded: no pickles, no code, and no weights for other programs."""

SETTINGS = "HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT and HTTPS_PROXY"
"""The environment variables that control downloads, as listed in error messages."""

DownloadProgress = Callable[[int, int, str], None]
"""A callback that is called with (bytes done, total bytes, file name).

It may raise to stop the download; a later download continues from there.
"""


def wanted_of_folder(names: Collection[str]) -> list[str]:
    """Return the files of a model in transformers' format, all of which are in one folder."""
    found = [name for name in names if "/" not in name and any(fnmatch(name, pattern) for pattern in WANTED)]
    return found if any(name.endswith(".safetensors") for name in found) else []


@dataclass(frozen=True)
class Repository:
    """A model on the hub.

    Attributes:
        name: its owner and name, such as "Qwen/Qwen3-0.6B".
        kind: what the model is in messages to the user, such as "captioner".
        revision: the commit to download; None for the newest.
        wanted: a function that chooses the files to download among the names of all; none if the model has no weights
            in safetensors.
        weights: what weights such a model must have, in messages to the user.
        marker: the file that makes a folder a model of this kind, which is put into the folder last.
        check: a function that looks at the folder with the small files before the first weights are downloaded, and
            raises a CrucibleError if the model cannot be used.
    """

    name: str
    kind: str
    revision: str | None = None
    wanted: Callable[[Collection[str]], Collection[str]] = field(default=wanted_of_folder, compare=False)
    weights: str = "model.safetensors"
    marker: str = "config.json"
    check: Callable[[Path], object] = field(default=lambda folder: None, compare=False)


def is_repository_name(written: str) -> bool:
    """Return whether a text has the form owner/name of a repository on the hub."""
    owner, _, name = written.partition("/")
    allowed = all(character.isascii() and (character.isalnum() or character in "-_.") for character in owner + name)
    return bool(owner and name) and allowed and not {owner, name} & {".", ".."} and "~" not in written


def download_repository(
    repository: Repository,
    folder: Path,
    progress: DownloadProgress = lambda done, total, file: None,
    announce: Callable[[str], None] = log.info,
) -> Path:
    """Download the files of a model that are safe and needed, and return its folder.

    Args:
        repository: the model.
        folder: the folder for its files, which gets them only when all of them are there.
        progress: a callback that follows the download.
        announce: a callback that gets a message before the download begins: what, from where and how large.

    Raises:
        CrucibleError: the download is forbidden, fails, or does not fit on the disk, or the model has no safetensors.
    """
    try:
        return _download(repository, folder, progress, announce)
    except CrucibleError:
        raise
    except Exception as error:  # the hub's library passes on whatever its HTTP client raises
        raise _failed(repository, folder, error) from error


def _download(
    repository: Repository, folder: Path, progress: DownloadProgress, announce: Callable[[str], None]
) -> Path:
    import huggingface_hub
    from huggingface_hub import constants

    repo, kind = repository.name, repository.kind
    if constants.HF_HUB_OFFLINE:
        raise CrucibleError(
            f"The {kind} {repo} cannot be downloaded, because the environment variable HF_HUB_OFFLINE (or "
            "TRANSFORMERS_OFFLINE) forbids it. Unset it and start again, or copy the model's files into this folder "
            f"yourself:\n  {folder}"
        )
    info = huggingface_hub.HfApi().model_info(repo, revision=repository.revision, files_metadata=True)
    all_sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    sizes = {name: all_sizes[name] for name in repository.wanted(list(all_sizes))}
    if not sizes:
        raise CrucibleError(
            f"{repo} has no {repository.weights} at revision {info.sha}, and weights in other formats are never "
            f"loaded, because they can run code. Nothing was downloaded. Choose another {kind}."
        )
    total = sum(sizes.values())
    announce(
        f"Downloading {repo} from {constants.ENDPOINT}: {total / 1e9:.2f} GB in {len(sizes)} files, revision "
        f"{info.sha}, to {folder}"
    )
    # Files reach the final folder only when all of them are downloaded, so that every listed model is usable.
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    _check_room(repository, partial, total)
    done, is_checked = 0, False
    for name in sorted(sizes, key=lambda name: (_is_weights(name), sizes[name])):
        if _is_weights(name) and not is_checked:
            repository.check(partial)
            is_checked = True
        progress(done, total, name)
        huggingface_hub.hf_hub_download(
            repo, name, revision=info.sha, local_dir=partial, **_bar(huggingface_hub, done, total, name, progress)
        )
        done += sizes[name]
    progress(total, total, folder.name)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for name in sorted(sizes, key=lambda name: name == repository.marker):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / name, folder / name)
    shutil.rmtree(partial, ignore_errors=True)  # only empty folders are left
    return folder


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _check_room(repository: Repository, folder: Path, total: int) -> None:
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if total - there > free:
        raise CrucibleError(
            f"The {repository.kind} {repository.name} needs {total / 1e9:.2f} GB, but the disk with {folder.parent} "
            f"has only {free / 1e9:.2f} GB free, so the download could not finish. Free some space there, or choose a "
            f"smaller {repository.kind}."
        )


def _bar(hub: Any, before: int, total: int, name: str, progress: DownloadProgress) -> dict[str, Any]:
    """Return the argument with which `progress` follows a file byte by byte, if the hub's library is new enough."""
    if "tqdm_class" not in inspect.signature(hub.hf_hub_download).parameters:
        return {}

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            settings.pop("name", None)
            settings["disable"] = True  # nothing is drawn
            super().__init__(*arguments, **settings)
            self.done = int(settings.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress(min(before + self.done, total), total, name)

    return {"tqdm_class": Bar}


def _failed(repository: Repository, folder: Path, error: Exception) -> CrucibleError:
    from huggingface_hub import constants

    text = str(error).strip()
    return CrucibleError(
        f"The {repository.kind} {repository.name} could not be downloaded from {constants.ENDPOINT} "
        f"({type(error).__name__}{': ' + text.splitlines()[0] if text else ''}). What was downloaded is kept, and the "
        "next try continues from there. Check the name and the internet connection, and these environment variables, "
        f"which control downloads and must be set before the program starts: {SETTINGS}. Or copy the model's .json, "
        f".txt, .csv and .safetensors files into this folder yourself:\n  {folder}"
    )
