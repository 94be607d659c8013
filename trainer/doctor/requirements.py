"""The required packages, and the check that they are installed and recent enough. Imports only the standard library."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ..errors import CrucibleError

FOLDER = Path(__file__).parents[1]
"""The folder of this package."""


@dataclass(frozen=True)
class Requirement:
    """A required package.

    Attributes:
        package: the name by which pip knows it.
        module: the name by which it is imported.
        minimum: the oldest version that is recent enough.
    """

    package: str
    module: str
    minimum: str

    @property
    def specifier(self) -> str:
        """The requirement in pip's notation, such as "peft>=0.17"."""
        return f"{self.package}>={self.minimum}"

    @property
    def is_there(self) -> bool:
        """Whether the package can be found; it is not imported for that."""
        return find_spec(self.module) is not None

    @property
    def is_too_old(self) -> bool:
        """Whether the installed version is too old; False for an unknown version, as packages may come without pip."""
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
"""The dependencies in pyproject.toml, repeated here because pip does not install that file."""

TORCH = Requirement("torch", "torch", "2.5")
MATPLOTLIB = Requirement("matplotlib", "matplotlib", "3.8")
STANDALONE = (TORCH, MATPLOTLIB)
"""The packages that are also required without ComfyUI."""


def require_packages(beyond: Sequence[Requirement] = ()) -> None:
    """Check that the required packages are installed and recent enough, before any of them is imported.

    Args:
        beyond: further required packages, from `STANDALONE`.

    Raises:
        CrucibleError: packages are missing or too old; the message gives the command that installs them.
    """
    lacks = lacks_text((*REQUIRED, *beyond))
    if lacks:
        raise CrucibleError(
            f"LoRA Crucible needs {lacks} in this Python. Install with:\n  "
            f"{install_command(standalone=bool(beyond))}\nthen start again. Packages that are recent enough are not "
            f"replaced. To check this computer for other problems, run:\n  {doctor_command()}"
        )


def lacks_text(wanted: Sequence[Requirement]) -> str:
    """List the missing and outdated packages, to follow the words "LoRA Crucible needs"; "" if there are none."""
    missing = [one.package for one in wanted if not one.is_there]
    lacks = [f"{', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"] if missing else []
    for one in wanted:
        if one.is_there and one.is_too_old:
            lacks.append(f"{one.package} {one.minimum} or newer, but {installed_version(one.package)} is installed")
    return "; ".join(lacks)


def installed_version(package: str) -> str | None:
    """Return the version that pip recorded, without importing the package; None if there is no record."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def install_command(*, standalone: bool) -> str:
    """Return the command that installs everything missing or too old and leaves other packages alone."""
    root = FOLDER.parent
    if not (root / "requirements.txt").is_file():  # installed by pip
        wanted = REQUIRED + (STANDALONE if standalone else ())
        what = " ".join(f'"{requirement.specifier}"' for requirement in wanted)
    else:
        what = f'"{root}[standalone]"' if standalone else f'-r "{root / "requirements.txt"}"'
    return pip_command(what)


def pip_command(arguments: str) -> str:
    """Return a pip command that uses the Python that is running."""
    return f'"{sys.executable}" -m pip install {arguments}'


def doctor_command(python: str | Path = sys.executable) -> str:
    """Return the command that examines this installation, which works from any folder."""
    return f'"{python}" "{FOLDER}" doctor'


def is_older(version: str, oldest: str) -> bool:
    """Return whether a version is older than another; False if it has no number."""
    return () != _release(version) < _release(oldest)


def _release(written: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (2, 9) for 2.9.0rc1+cu128, so that 2.9 equals 2.9.0."""
    numbers = re.match(r"v?(\d+(?:\.\d+)*)", written)
    parts = [int(part) for part in numbers[1].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
