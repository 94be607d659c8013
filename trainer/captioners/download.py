"""Fetches captioners from the Hugging Face hub, through its own library and with its settings."""

from __future__ import annotations

import inspect
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import CrucibleError
from .models import find_captioner, known_model, not_there

log = logging.getLogger(__name__)

WANTED = ("*.json", "*.txt", "*.csv", "*.jinja", "*.model", "model*.safetensors")
"""No pickles, no code, no other program's weights."""

SETTINGS = "HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT and HTTPS_PROXY"

DownloadProgress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, file); may raise to stop, and a later download goes on from there."""


def get_captioner(
    written: str,
    roots: Sequence[Path],
    *,
    download: bool,
    progress: DownloadProgress = lambda done, total, file: None,
    announce: Callable[[str], None] = log.info,
) -> Path:
    """The folder of a captioner, fetched from the hub if it is not there and the user allows it.

    Args:
        written: a folder's name below one of the roots, a known model, or owner/name on the hub.
        roots: the folders that captioners are taken from; downloads go to the first.
        announce: told what will be fetched, from where and how large it is, before it begins.

    Raises:
        CrucibleError: it is not there and may not be downloaded, or the download fails.
    """
    found = find_captioner(written, roots)
    if found is not None:
        return found
    model = known_model(written)
    repo = written if model is None else model.repo
    if not download or repo.count("/") != 1 or Path(repo).is_absolute() or ".." in repo.split("/"):
        raise not_there(written, roots)
    folder = roots[0] / repo.split("/")[1]
    try:
        return _download(repo, model.revision if model else None, folder, progress, announce)
    except CrucibleError:
        raise
    except Exception as error:  # the hub's library lets through whatever its HTTP client raises
        raise _failed(repo, folder, error) from error


def _download(
    repo: str, revision: str | None, folder: Path, progress: DownloadProgress, announce: Callable[[str], None]
) -> Path:
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise CrucibleError(
            f"The captioner {repo} cannot be downloaded: the environment variable HF_HUB_OFFLINE (or "
            "TRANSFORMERS_OFFLINE) forbids it. Unset it and start again, or put the model's files into\n  "
            f"{folder}\nyourself."
        )
    info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if _is_wanted(file.rfilename)}
    if not any(name.endswith(".safetensors") for name in sizes):
        raise CrucibleError(
            f"{repo} has no model.safetensors at revision {info.sha}, and weights in other forms are never loaded, "
            "since they can run code. Nothing was downloaded. Choose another captioner."
        )
    total = sum(sizes.values())
    announce(
        f"Downloading {repo} from {constants.ENDPOINT}: {total / 1e9:.2f} GB in {len(sizes)} files, revision "
        f"{info.sha}, to {folder}"
    )
    # It comes to its place when it is whole: a captioner that is listed can be used.
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    _check_room(repo, partial, total)
    done = 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        progress(done, total, name)
        huggingface_hub.hf_hub_download(
            repo, name, revision=info.sha, local_dir=partial, **_bar(huggingface_hub, done, total, name, progress)
        )
        done += sizes[name]
    progress(total, total, folder.name)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for name in sorted(sizes, key=lambda name: name == "config.json"):  # which makes it a captioner
        os.replace(partial / name, folder / name)
    partial.rmdir()
    return folder


def _is_wanted(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in WANTED)


def _check_room(repo: str, folder: Path, total: int) -> None:
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if total - there > free:
        raise CrucibleError(
            f"The captioner {repo} takes {total / 1e9:.2f} GB, and the disk of {folder.parent} has {free / 1e9:.2f} GB "
            "left, so the download would break off. Make room there, or choose a smaller captioner."
        )


def _bar(hub: Any, before: int, total: int, name: str, progress: DownloadProgress) -> dict[str, Any]:
    """The argument that lets `progress` follow a file byte by byte, where the hub's library is new enough."""
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


def _failed(repo: str, folder: Path, error: Exception) -> CrucibleError:
    from huggingface_hub import constants

    text = str(error).strip()
    return CrucibleError(
        f"The captioner {repo} could not be downloaded from {constants.ENDPOINT} ({type(error).__name__}"
        f"{': ' + text.splitlines()[0] if text else ''}). What came is kept and the next try goes on from there. "
        "Check the connection; the library that downloads goes by these environment variables, set before the program "
        f"starts: {SETTINGS}. Or put the model's .json, .txt, .csv and .safetensors files into\n  {folder}\nyourself."
    )
