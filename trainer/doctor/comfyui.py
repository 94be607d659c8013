"""The ComfyUI that this pack belongs to, from the outside: nothing of it is imported."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from .page import Advice, Section, path_text
from .requirements import FOLDER, doctor_command, is_older

OLDEST = "0.26"
"""Of ComfyUI's versions that have what the nodes need, as in pyproject.toml."""

ENVIRONMENTS = (".venv", "venv", "../python_embeded", "../venv", "../.venv")
"""Where installations of ComfyUI have a Python of their own. Its portable one spells it so."""


def find_comfyui() -> Path | None:
    """The folder that COMFYUI_PATH names, or in whose custom_nodes this pack lies."""
    named = os.environ.get("COMFYUI_PATH")
    candidates = [Path(os.path.expanduser(named)).absolute()] if named else []
    candidates += [parent.parent for parent in FOLDER.absolute().parents if parent.name == "custom_nodes"]
    return next((folder for folder in candidates if os.path.isfile(folder / "main.py")), None)


def python_of(comfyui: Path) -> Path | None:
    """The Python that this ComfyUI has beside it; None where that is the one that runs here, or there is none."""
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
    section = Section("ComfyUI")
    named = os.environ.get("COMFYUI_PATH")
    if named and comfyui != Path(os.path.expanduser(named)).absolute():
        section.notes.append(
            Advice(
                f"COMFYUI_PATH is {path_text(named)}, and no ComfyUI is there (it has no main.py). Correct or unset it."
            )
        )
    if comfyui is None:
        section.rows.append(("folder", "none: this pack lies in no ComfyUI/custom_nodes"))
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
                f"ComfyUI in {path_text(comfyui)} is version {version}, and training needs {OLDEST} or newer. Update "
                "it: the nodes use what older ones do not have."
            )
        )
    python = python_of(comfyui)
    if python is not None:
        section.rows.append(("its own Python", path_text(python)))
        section.notes.append(
            Advice(
                "ComfyUI has a Python of its own, and this report is of another one. For a report of its own:",
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
    """Whether a user's file of folders has one for datasets. Read without a YAML parser, which may be missing."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return "none, so datasets are in ComfyUI's input and datasets folders"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if re.search(r"^[ \t]+datasets\s*:", text, re.MULTILINE):
        return "registers folders of datasets"
    return "no `datasets`, so they are in ComfyUI's input and datasets folders"
