"""Whether results have a place: write access, really tried, and free disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .page import Advice, Section, path_text, size_text

LEAST_FREE = 10**9
"""Bytes: a LoRA of a large model and what is encoded of a small dataset."""


def result_folders(output_dir: str | None, comfyui: Path | None) -> dict[str, Path]:
    """Where a training writes, by what goes there.

    Args:
        output_dir: as the user wrote it; None takes ComfyUI's, or `output` where there is no ComfyUI.
        comfyui: the folder of ComfyUI, None without it.
    """
    if comfyui is None:
        output = Path(output_dir or "output").expanduser().absolute()
        return {"output": output, "cache": output / ".cache"}
    output = Path(output_dir).expanduser().absolute() if output_dir else comfyui / "output"
    return {"LoRAs": output / "loras", "runs": output / "crucible", "cache": output / "crucible" / ".cache"}


def examine_folders(folders: Mapping[str, Path]) -> Section:
    section = Section("Folders")
    obstacles: dict[Path, Advice] = {}
    for name, folder in folders.items():
        there = next((path for path in (folder, *folder.parents) if path.exists()), Path(folder.anchor))
        trouble = _trouble_of_writing(there)
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            trouble, free = trouble or str(error), 0
        section.rows.append((name, path_text(folder)))
        section.rows.append(("", f"{'cannot be written' if trouble else 'writable'}, {size_text(free)} free"))
        if trouble:
            obstacles.setdefault(
                there,
                Advice(
                    f"The folder {path_text(there)} cannot be written to ({trouble}), so what a training makes has no "
                    "place. Allow writing there, or choose another output folder."
                ),
            )
        elif free < LEAST_FREE:
            obstacles.setdefault(
                there,
                Advice(
                    f"The disk of {path_text(there)} has only {size_text(free)} left, and a training needs "
                    f"{size_text(LEAST_FREE)} at the least, so its results may not fit. Make room, or choose an output "
                    "folder on another disk."
                ),
            )
    section.obstacles += obstacles.values()
    return section


def _trouble_of_writing(folder: Path) -> str:
    """Writes a file there and removes it; what the system says when it refuses."""
    path = folder / f".crucible_doctor_{os.getpid()}"
    try:
        with open(path, "xb") as file:
            file.write(bytes(4096))
        path.unlink()
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # a full disk takes the name, but not the content
        return error.strerror or str(error)
    return ""
