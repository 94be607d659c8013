"""Whether the packages that training needs are there."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import CrucibleError

PACKAGES = ("accelerate", "diffusers", "peft", "psutil", "pydantic", "safetensors", "transformers", "yaml")
STANDALONE_PACKAGES = ("matplotlib", "torch")


def require_packages(*, standalone: bool = False) -> None:
    """Check before anything is loaded.

    Raises:
        CrucibleError: names what is missing and the command that installs it.
    """
    wanted = PACKAGES + (STANDALONE_PACKAGES if standalone else ())
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        root = Path(__file__).parent.parent
        what = f'"{root}[standalone]"' if standalone else f'-r "{root / "requirements.txt"}"'
        raise CrucibleError(
            f"Training needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed in the "
            f'Python that runs here. Install with:\n  "{sys.executable}" -m pip install {what}\nand '
            "start again. No package that you have is replaced."
        )
