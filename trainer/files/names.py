"""Names of output files: which are allowed, and which are still free."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import CrucibleError

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
# Most file systems end at 255 bytes; this leaves room for a counter and an ending.
_MAX_BYTES = 200


def check_output_name(name: str) -> str:
    """`name`, if a file can have it on every system, without a typed ".safetensors".

    Raises:
        CrucibleError: it is empty, names a folder, or some system cannot store it.
    """
    stem = name[: -len(".safetensors")] if name.lower().endswith(".safetensors") else name
    problem = _problem(stem)
    if problem:
        raise CrucibleError(
            f"output_name {name!r} cannot be used: {problem}. The LoRA is saved under this name, which has "
            "to work on Windows, macOS and Linux. Use a plain name such as 'my_character', without folders."
        )
    return stem


def _problem(name: str) -> str:
    if not name.strip():
        return "it is empty"
    if found := _FORBIDDEN.search(name):
        kind = "separates folders" if found[0] in "/\\" else "is not allowed in file names"
        return f"the character {found[0]!r} {kind}"
    if name.startswith("."):
        return "a name that starts with a dot is hidden or means another folder"
    if name.startswith(" ") or name.endswith((".", " ")):
        return "a name must not start with a space, nor end with a dot or a space"
    if _RESERVED.fullmatch(name.split(".")[0].rstrip()):
        return f"Windows keeps {name.split('.')[0]!r} for a device"
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it has characters that are not text"
    if length > _MAX_BYTES:
        return f"it takes {length} bytes, and {_MAX_BYTES} are allowed"
    return ""


def nowhere(name: str) -> bool:
    """No other folder has a file of this name."""
    return False


def unused_path(folder: Path, name: str, is_listed: Callable[[str], bool] = nowhere) -> Path:
    """The path of a new LoRA of this name, or with a number where there is one.

    Args:
        is_listed: whether a LoRA of this file name is in another folder that counts.

    Raises:
        CrucibleError: no file can have this name.
    """

    def taken(name: str) -> bool:
        return (folder / f"{name}.safetensors").exists() or is_listed(f"{name}.safetensors")

    return folder / f"{unused_name(check_output_name(name), taken)}.safetensors"


def unused_name(name: str, taken: Callable[[str], bool]) -> str:
    """`name`, or the first of `name_2`, `name_3`, … that `taken` says no to."""
    candidate, count = name, 1
    while taken(candidate):
        count += 1
        candidate = f"{name}_{count}"
    return candidate
