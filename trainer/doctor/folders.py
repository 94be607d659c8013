"""Examination of the folders for results: write access, tested by writing, and free disk space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .page import Advice, Section, path_text, size_text

LEAST_FREE = 10**9
"""The bytes of disk space that a LoRA of a large model and the encoded data of a small dataset need."""


def result_folders(output_dir: str | None, comfyui: Path | None) -> dict[str, Path]:
    """Return the folders that a training writes to, by the kind of their content.

    Args:
        output_dir: the output folder as the user wrote it; None uses ComfyUI's, or `output` without ComfyUI.
        comfyui: the folder of ComfyUI, or None without ComfyUI.
    """
    if comfyui is None:
        output = _absolute(output_dir or "output")
        return {"output": output, "cache": output / ".cache"}
    output = _absolute(output_dir) if output_dir else comfyui / "output"
    return {"LoRAs": output / "loras", "runs": output / "crucible", "cache": output / "crucible" / ".cache"}


def _absolute(written: str) -> Path:
    return Path(os.path.expanduser(written)).absolute()


def examine_folders(folders: Mapping[str, Path]) -> Section:
    """Test write access and free disk space of folders, or of their nearest parents that exist."""
    section = Section("Folders")
    obstacles: dict[Path, Advice] = {}
    for name, folder in folders.items():
        there = next((path for path in (folder, *folder.parents) if os.path.exists(path)), Path(folder.anchor))
        trouble = _trouble_of_writing(there)
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            trouble, free = trouble or str(error), 0
        section.rows.append((name, path_text(folder)))
        section.rows.append(("", f"{'cannot be written to' if trouble else 'writable'}, {size_text(free)} free"))
        if trouble:
            obstacles.setdefault(
                there,
                Advice(
                    f"The folder {path_text(there)} cannot be written to ({trouble}), so training could not save its "
                    "results. Allow writing there, or choose another output folder."
                ),
            )
        elif free < LEAST_FREE:
            obstacles.setdefault(
                there,
                Advice(
                    f"The disk with {path_text(there)} has only {size_text(free)} free, but training needs at least "
                    f"{size_text(LEAST_FREE)}, so its results may not fit. Free some space, or choose an output folder "
                    "on another disk."
                ),
            )
    section.obstacles += obstacles.values()
    return section


def _trouble_of_writing(folder: Path) -> str:
    """Write a file to the folder and remove it; return the system's error, or "" if it worked."""
    path = folder / f".crucible_doctor_{os.getpid()}"
    try:
        with open(path, "xb") as file:
            file.write(bytes(4096))
        path.unlink()
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # a full disk accepts the name, but not the content
        return error.strerror or str(error)
    return ""
