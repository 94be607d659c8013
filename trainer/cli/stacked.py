"""LoRAs with strengths, as they are written on the command line."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CrucibleError, errors_about

if TYPE_CHECKING:
    from ..merging.ingredients import Strengths

_STACKED = re.compile(r"(.*\.(?:safetensors|sft))((?::[^:]*)*)", re.IGNORECASE | re.DOTALL)
_FOLDER = re.compile(r"(.+?)((?::[-+.\d]+)*)", re.DOTALL)


def stacked(text: str) -> Strengths:
    """Read a LoRA and its strengths: "file.safetensors", "file.safetensors:0.7" or "file.safetensors:0.7:0.5".

    A folder that PEFT wrote can stand in place of the file.

    Raises:
        CrucibleError: the text is no LoRA with strengths, or the LoRA cannot be read.
    """
    from ..formats.adapter_folder import lora_name
    from ..formats.lora_file import read_lora
    from ..formats.lora_model import LoraModel
    from ..merging.ingredients import Strengths

    path, strengths = _parsed(text)
    with errors_about("model"):
        tensors, metadata = read_lora(path)
    strengths = strengths or [1.0]
    return Strengths(LoraModel(tensors, f"{lora_name(path)}{path.suffix}", metadata), strengths[0], strengths[-1])


def stacked_path(text: str) -> Path:
    """Return the file of the LoRA in such a text."""
    return _parsed(text)[0]


def _parsed(text: str) -> tuple[Path, list[float]]:
    from ..formats.adapter_folder import lora_path

    match = _STACKED.fullmatch(text)
    if match is None and (folder := _FOLDER.fullmatch(text)) and Path(folder[1]).expanduser().is_dir():
        match = folder
    try:
        strengths = [float(number) for number in match[2].split(":")[1:]] if match else []
    except ValueError:
        match = None
    if match is None or len(strengths) > 2 or not all(map(math.isfinite, strengths)):
        raise CrucibleError(
            f"{text!r} is not a LoRA with a strength. Write the file, then its strength after a colon and, if the "
            "text encoders need a different one, theirs after another colon: mine.safetensors:0.7:0.5.",
            "settings",
        )
    with errors_about("model"):
        return lora_path(Path(match[1])), strengths
