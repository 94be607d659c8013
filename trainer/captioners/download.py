"""The folder of a captioner, which is downloaded from the Hugging Face hub if it is missing and the user allows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ..files.hub import DownloadProgress, Repository, download_repository, is_repository_name
from .models import find_captioner, known_model, not_there

log = logging.getLogger(__name__)


def get_captioner(
    written: str,
    roots: Sequence[Path],
    *,
    download: bool,
    progress: DownloadProgress = lambda done, total, file: None,
    announce: Callable[[str], None] = log.info,
) -> Path:
    """Return the folder of a captioner, downloading it from the hub if it is missing and the user allows it.

    Args:
        written: the user's choice: a folder's name below one of the roots, a known model, or owner/name on the hub.
        roots: the folders that are searched for captioners; downloads go to the first.
        download: whether the captioner may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: the captioner is missing and may not be downloaded, or the download fails.
    """
    found = find_captioner(written, roots)
    if found is not None:
        return found
    model = known_model(written)
    repo = written if model is None else model.repo
    if not download or not is_repository_name(repo):
        raise not_there(written, roots)
    repository = Repository(repo, "captioner", model.revision if model else None)
    return download_repository(repository, roots[0] / repo.split("/")[1], progress, announce)
