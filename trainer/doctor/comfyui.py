"""Examination of the ComfyUI that this pack belongs to, without importing any of it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from .page import Advice, Section, path_text
from .requirements import FOLDER, doctor_command, is_older

OLDEST = "0.33"
"""The oldest version of ComfyUI that has everything the nodes need, as in pyproject.toml."""

ENVIRONMENTS = (".venv", "venv", "../python_embeded", "../venv", "../.venv")
"""Folders, relative to ComfyUI's, where its own Python may be; "python_embeded" is the portable version's spelling."""


def find_comfyui() -> Path | None:
    """Return the folder of ComfyUI that COMFYUI_PATH names, or whose custom_nodes contains this pack, or None."""
    named = os.environ.get("COMFYUI_PATH")
    candidates = [Path(os.path.expanduser(named)).absolute()] if named else []
    candidates += [parent.parent for parent in FOLDER.absolute().parents if parent.name == "custom_nodes"]
    return next((folder for folder in candidates if os.path.isfile(folder / "main.py")), None)


def python_of(comfyui: Path) -> Path | None:
    """Return the Python that belongs to this ComfyUI; None if there is none or if it is the one that is running.

    It is the one that COMFYUI_PYTHON names, or that of an environment in or beside ComfyUI's folder.
    """
    if named := os.environ.get("COMFYUI_PYTHON"):
        python = Path(os.path.normpath(os.path.expanduser(named)))
        return None if python.absolute() == Path(sys.executable) or not os.path.isfile(python) else python
    environments = [comfyui / name for name in ENVIRONMENTS]
    if any(Path(sys.prefix).resolve() == environment.resolve() for environment in environments):
        return None
    candidates = (
        environment / python
        for environment in environments
        for python in ("bin/python", "Scripts/python.exe", "python.exe")
    )
    return next((Path(os.path.normpath(python)) for python in candidates if os.path.isfile(python)), None)


def examine_comfyui(comfyui: Path | None) -> Section:
    """Examine the folder, the version, the dataset folders and the Python of ComfyUI, if there is one."""
    section = Section("ComfyUI")
    named = os.environ.get("COMFYUI_PATH")
    if named and comfyui != Path(os.path.expanduser(named)).absolute():
        section.notes.append(
            Advice(
                f"COMFYUI_PATH is set to {path_text(named)}, but no ComfyUI is there (no main.py). Correct or unset it."
            )
        )
    if comfyui is None:
        section.rows.append(("folder", "none: this pack is not inside a ComfyUI/custom_nodes folder"))
        return section
    version = _version(comfyui)
    section.rows += [
        ("folder", path_text(comfyui)),
        ("version", version or "unknown"),
        ("extra_model_paths.yaml", _registered(comfyui / "extra_model_paths.yaml")),
    ]
    if version and is_older(version, OLDEST):
        section.obstacles.append(
            Advice(
                f"ComfyUI in {path_text(comfyui)} is version {version}, but training needs {OLDEST} or newer. Update "
                "it: the nodes use features that older versions do not have."
            )
        )
    python = python_of(comfyui)
    if python is not None:
        section.rows.append(("its own Python", path_text(python)))
        section.notes.append(
            Advice(
                "ComfyUI has its own Python, but this report describes a different one. To examine ComfyUI's, run:",
                doctor_command(python),
            )
        )
    return section


def _version(comfyui: Path) -> str | None:
    try:
        text = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r"""__version__\s*=\s*["']([^"']+)["']""", text)
    return found[1] if found else None


def _registered(file: Path) -> str:
    """Describe whether a user's extra_model_paths.yaml registers dataset folders.

    The file is read without a YAML parser, because that may be missing.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return "none, so datasets are in ComfyUI's input and datasets folders"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if re.search(r"^[ \t]+datasets\s*:", text, re.MULTILINE):
        return "registers dataset folders"
    return "no `datasets`, so datasets are in ComfyUI's input and datasets folders"
