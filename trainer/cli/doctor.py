"""The doctor command itself, which runs all examinations and prints the report."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

from .. import __version__
from ..doctor.comfyui import examine_comfyui, find_comfyui, python_of
from ..doctor.devices import examine_devices
from ..doctor.folders import examine_folders, result_folders
from ..doctor.packages import examine_optional_packages, examine_packages, loading_steps
from ..doctor.page import Advice, Section, page, path_text
from ..doctor.probing import Step, probe
from ..doctor.requirements import doctor_command
from .exit_status import ExitStatus, Outcome

OLDEST_PYTHON = (3, 10)


def add_doctor_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    doctor = commands.add_parser("doctor", help="check this computer: versions, devices, memory, folders, packages")
    doctor.add_argument("--output_dir", help="folder for the results (default: output, in ComfyUI its output folder)")
    doctor.set_defaults(command=_doctor, needs=None)


def _doctor(options: argparse.Namespace) -> Outcome:
    print("Loading every package once; this can take a minute.", file=sys.stderr)
    # Memory comes first, before packages take some of it; devices come last, because a faulty driver can hang.
    answers = probe([Step("memory"), *loading_steps(), Step("devices")])
    comfyui = find_comfyui()
    standalone = comfyui is None
    packages = examine_packages(answers, standalone=standalone)
    own_python = python_of(comfyui) if comfyui is not None else None
    if packages.obstacles and own_python is not None:
        packages.obstacles = [_wrong_python(own_python)]
    sections = [
        _examine_system(),
        packages,
        examine_optional_packages(answers, standalone=standalone),
        examine_devices(answers),
        examine_folders(result_folders(options.output_dir, comfyui)),
        examine_comfyui(comfyui),
    ]
    print(page(f"LoRA Crucible {__version__}: doctor report", sections))
    obstacles = [_facts_of(advice) for section in sections for advice in section.obstacles]
    facts = {
        "sections": {section.title: section.rows for section in sections},
        "notes": [_facts_of(advice) for section in sections for advice in section.notes],
        "obstacles": obstacles,
    }
    return Outcome(facts, ExitStatus.OTHER if obstacles else ExitStatus.DONE)


def _facts_of(advice: Advice) -> dict[str, str]:
    return {"text": advice.text, "command": advice.command}


def _examine_system() -> Section:
    section = Section("System")
    section.rows += [
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", f"{platform.python_version()}, {path_text(sys.executable)}"),
        ("LoRA Crucible", f"{__version__}, {path_text(Path(__file__).absolute().parents[2])}"),
    ]
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        section.obstacles.append(
            Advice(
                f"This Python is version {platform.python_version()}, but training needs {oldest} or newer. Install a "
                "newer one, and the packages into it."
            )
        )
    return section


def _wrong_python(own_python: Path) -> Advice:
    return Advice(
        f"Packages that training needs are missing or broken in {path_text(sys.executable)}. But ComfyUI has its own "
        "Python, and that is where they belong. Examine that one with:",
        doctor_command(own_python),
    )
