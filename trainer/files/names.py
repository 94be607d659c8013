"""Names of output files: which ones are allowed, and which ones are still free."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import CrucibleError

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
LONGEST_NAME = 255
"""The most bytes that most file systems allow in the name of a file."""

_MAX_BYTES = 200  # leaves room for a counter and an extension


def check_output_name(name: str) -> str:
    """Check that a file can have this name on every system, and return it without ".safetensors".

    Raises:
        CrucibleError: the name is empty, names a folder, or cannot be stored on some system.
    """
    stem = name[: -len(".safetensors")] if name.lower().endswith(".safetensors") else name
    problem = _problem(stem)
    if problem:
        raise CrucibleError(
            f"output_name {name!r} cannot be used: {problem}. The LoRA is saved under this name, which has "
            "to work on Windows, macOS and Linux. Use a plain name such as 'my_character', without folders.",
            "settings",
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
        return "a name must not start with a space, or end with a dot or a space"
    if _RESERVED.fullmatch(name.split(".")[0].rstrip()):
        return f"Windows reserves {name.split('.')[0]!r} for a device"
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it has characters that are not valid text"
    if length > _MAX_BYTES:
        return f"it takes {length} bytes, but at most {_MAX_BYTES} are allowed"
    return ""


def derived_name(name: str, ending: str, beginning: str = "") -> str:
    """Return a file name with a beginning and an ending added, shortened if it would be too long for a file system.

    A shortened name has a hash in it, so that different names stay different.

    Args:
        name: the name of a file that may exist, so of up to 255 bytes.
        ending: the ending to add, such as ".bak".
        beginning: the beginning to add, such as ".".
    """
    whole = f"{beginning}{name}{ending}"
    if len(os.fsencode(whole)) <= LONGEST_NAME:
        return whole
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    room = LONGEST_NAME - len(os.fsencode(f"{beginning}~{digest}{ending}"))
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return f"{beginning}{name}~{digest}{ending}"


def nowhere(name: str) -> bool:
    """Return False: no other folder counts."""
    return False


def unused_path(folder: Path, name: str, is_listed: Callable[[str], bool] = nowhere) -> Path:
    """Return the path for a new LoRA with this name, with a number appended if the name is taken.

    Args:
        folder: the folder for the new file.
        name: the name that the user chose.
        is_listed: a function that returns whether a LoRA with this file name is in another folder that counts.

    Raises:
        CrucibleError: the name is not allowed for a file.
    """

    def taken(name: str) -> bool:
        return (folder / f"{name}.safetensors").exists() or is_listed(f"{name}.safetensors")

    return folder / f"{unused_name(check_output_name(name), taken)}.safetensors"


def unused_name(name: str, taken: Callable[[str], bool]) -> str:
    """Return `name`, or the first of `name_2`, `name_3`, … that is not taken."""
    candidate, count = name, 1
    while taken(candidate):
        count += 1
        candidate = f"{name}_{count}"
    return candidate
