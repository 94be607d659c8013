"""Whether the packages that are needed are there and new enough. Imports nothing but the standard library."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ..errors import CrucibleError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Requirement:
    """A package by the name pip knows, the name it is imported by, and the oldest version that will do."""

    package: str
    module: str
    minimum: str

    @property
    def specifier(self) -> str:
        """As pip reads it."""
        return f"{self.package}>={self.minimum}"

    @property
    def is_there(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def is_too_old(self) -> bool:
        """False where the version is not known: whoever installed a package without pip knows better."""
        installed = installed_version(self.package)
        return installed is not None and is_older(installed, self.minimum)


REQUIRED = (
    Requirement("accelerate", "accelerate", "1.0"),
    Requirement("diffusers", "diffusers", "0.33"),
    Requirement("filelock", "filelock", "3.12"),
    Requirement("numpy", "numpy", "1.25"),
    Requirement("peft", "peft", "0.17"),
    Requirement("Pillow", "PIL", "10.1"),
    Requirement("psutil", "psutil", "5.9"),
    Requirement("pydantic", "pydantic", "2.0"),
    Requirement("pyyaml", "yaml", "6.0"),
    Requirement("safetensors", "safetensors", "0.4.3"),
    Requirement("tqdm", "tqdm", "4.60"),
    Requirement("transformers", "transformers", "4.50.3"),
)
"""The dependencies in pyproject.toml, which cannot be read where the package was installed by pip."""

TORCH = Requirement("torch", "torch", "2.5")
MATPLOTLIB = Requirement("matplotlib", "matplotlib", "3.8")
STANDALONE = (TORCH, MATPLOTLIB)
"""What comes on top without ComfyUI."""


def require_packages(beyond: Sequence[Requirement] = ()) -> None:
    """Check before anything is loaded.

    Args:
        beyond: what is needed on top, of `STANDALONE`.

    Raises:
        CrucibleError: names what is missing or too old, and the command that mends it.
    """
    lacks = lacks_text((*REQUIRED, *beyond))
    if lacks:
        raise CrucibleError(
            f"LoRA Crucible needs {lacks} in the Python that runs here. Install with:\n  "
            f"{install_command(standalone=bool(beyond))}\nand start again. Packages that are new enough are not "
            f"replaced. To see what else may be amiss on this computer:\n  {doctor_command()}"
        )


def lacks_text(wanted: Sequence[Requirement]) -> str:
    """What is missing or too old, to follow the words "LoRA Crucible needs"; "" where nothing is."""
    missing = [one.package for one in wanted if not one.is_there]
    lacks = [f"{', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"] if missing else []
    for one in wanted:
        if one.is_there and one.is_too_old:
            lacks.append(f"{one.package} {one.minimum} or newer, where {installed_version(one.package)} is installed")
    return "; ".join(lacks)


def installed_version(package: str) -> str | None:
    """By what pip noted down, without loading the package; None where there is no note."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def install_command(*, standalone: bool) -> str:
    """The command that installs everything that is missing or too old, and touches nothing else."""
    root = FOLDER.parent
    if not (root / "requirements.txt").is_file():  # installed by pip
        wanted = REQUIRED + (STANDALONE if standalone else ())
        what = " ".join(f'"{requirement.specifier}"' for requirement in wanted)
    else:
        what = f'"{root}[standalone]"' if standalone else f'-r "{root / "requirements.txt"}"'
    return pip_command(what)


def pip_command(arguments: str) -> str:
    """Installs into the Python that runs here."""
    return f'"{sys.executable}" -m pip install {arguments}'


def doctor_command(python: str | Path = sys.executable) -> str:
    """The command that examines this installation, from any folder."""
    return f'"{python}" "{FOLDER}" doctor'


def is_older(version: str, oldest: str) -> bool:
    """False where the version has no number."""
    return () != _release(version) < _release(oldest)


def _release(written: str) -> tuple[int, ...]:
    """The numbers in front of a version: 2.9 of 2.9.0rc1+cu128, so that 2.9 and 2.9.0 are one."""
    numbers = re.match(r"v?(\d+(?:\.\d+)*)", written)
    parts = [int(part) for part in numbers[1].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
