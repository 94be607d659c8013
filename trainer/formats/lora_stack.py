"""The LORA_STACK type: LoRAs by name with two strengths each, as the stacker nodes of many packs exchange them."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CrucibleError
from ..messages.suggestions import nearest_names
from ..messages.wording import listed as listed_names
from .header import ENDINGS


@dataclass(frozen=True)
class StackEntry:
    """The name of a LoRA in ComfyUI's list of LoRAs, and its strengths on the model and the text encoder."""

    name: str
    strength_model: float
    strength_clip: float

    def as_tuple(self) -> tuple[str, float, float]:
        """Return the entry as the socket carries it: (name, strength_model, strength_clip)."""
        return self.name, self.strength_model, self.strength_clip


def read_stack(stack: Any, listed: Sequence[str], folders: Sequence[str] = ()) -> list[StackEntry]:
    """Read the LoRAs of a stack from any node pack.

    Rows may be lists; rows without a LoRA (None, "None", "") are skipped, as other packs intend. Names may be written
    as `listed_name` takes them.

    Args:
        stack: the value that came through the socket; None is an empty stack.
        listed, folders: as for `listed_name`.

    Raises:
        CrucibleError: the value is not a list, a row is not a name with two strengths, or a name is not in the list.
    """
    if stack is None:
        return []
    if not isinstance(stack, list | tuple):
        raise CrucibleError(
            f"The input lora_stack is not a LoRA stack but {_shown(stack)}. A stack is a list of rows (name, "
            "strength_model, strength_clip). Connect the lora_stack of a LoRA stacker or of Load LoRA (Crucible)."
        )
    entries = []
    for number, row in enumerate(stack, start=1):
        if row is None or (isinstance(row, list | tuple) and row and row[0] in (None, "", "None")):
            continue
        if not isinstance(row, list | tuple) or len(row) != 3 or not isinstance(row[0], str):
            raise CrucibleError(
                f"Row {number} of the LoRA stack is {_shown(row)}, not (name, strength_model, strength_clip), so it is "
                "unclear which LoRA to apply at which strength. Use another stacker node, or one Load LoRA node per "
                "LoRA."
            )
        name, *strengths = row
        if not all(_is_strength(strength) for strength in strengths):
            raise CrucibleError(
                f"Row {number} of the LoRA stack gives {name!r} the strengths {_shown(strengths)}, which are not two "
                "numbers, so it cannot be applied. Correct them in the node that makes the stack."
            )
        entries.append(StackEntry(listed_name(name, listed, folders), *map(float, strengths)))
    return entries


def listed_name(name: str, listed: Sequence[str], folders: Sequence[str] = ()) -> str:
    """Return the entry of ComfyUI's list of LoRAs that a name refers to.

    The name may lack its ending or its folder, have backslashes or accents of another spelling in Unicode, or be the
    whole path of a file in one of the folders, with or without `~`. It must be clear which entry is meant. Only entries
    are returned, so that no name leads out of ComfyUI's folders.

    Args:
        name: the name as written.
        listed: ComfyUI's list of LoRAs.
        folders: the folders that the list is made from.

    Raises:
        CrucibleError: no entry matches, or more than one.
    """
    wanted = _spelled(_in_folder(name.strip(), folders))
    spellings = {wanted, *(wanted + ending for ending in ENDINGS)}
    entries = {entry: _spelled(entry) for entry in listed}
    found = [entry for entry, spelled in entries.items() if spelled in spellings]
    if len(found) > 1 and name in found:  # of two entries that differ in the spelling of their accents alone
        found = [name]
    if not found and "/" not in wanted:
        found = [entry for entry, spelled in entries.items() if PurePosixPath(spelled).name in spellings]
    if len(found) == 1:
        return found[0]
    if found:
        raise CrucibleError(
            f"The LoRA {name!r} could be any of {listed_names(sorted(found))}, so none was chosen. Give the name with "
            "its folder and ending."
        )
    raise CrucibleError(
        f"The LoRA {name!r} is not in ComfyUI's LoRA folders, so it cannot be applied. It was deleted, renamed or "
        "moved, or it is on another computer. Put the file into models/loras, press R to refresh the list, and choose "
        f"it again.{_similar(name, listed)}"
    )


def _in_folder(name: str, folders: Sequence[str]) -> str:
    """Return a path relative to the folder that it is in; any other name unchanged."""
    path = Path(os.path.expanduser(name))
    return next((path.relative_to(one).as_posix() for one in folders if path.is_relative_to(one)), name)


def _spelled(name: str) -> str:
    """Return a name with slashes, and with accents composed as Windows and Linux write them; Macs decompose them."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _similar(name: str, listed: Sequence[str]) -> str:
    near = nearest_names(name, listed, count=3)
    return f" Similar names are {', '.join(near)}." if near else ""


def _is_strength(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
