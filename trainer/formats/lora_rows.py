"""A stack of LoRAs as text: what the LoRA Stack node stores, and what people and programs may write by hand.

The text is a JSON list with one object per LoRA:

    [
      {"name": "ink.safetensors", "strength_model": 0.8},
      {"name": "styles/oil.safetensors", "strength_model": 0.6, "strength_clip": 0.4, "enabled": false}
    ]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..errors import CrucibleError
from ..messages.suggestions import nearest_names

KEYS = ("name", "strength_model", "strength_clip", "enabled")
MAXIMUM_STRENGTH = 20
EXAMPLE = '{"name": "ink.safetensors", "strength_model": 0.8}'


@dataclass(frozen=True)
class LoraRow:
    """One LoRA of a stack; `name` is the file as ComfyUI lists it."""

    name: str
    strength_model: float
    strength_clip: float
    enabled: bool

    @property
    def acts(self) -> bool:
        return self.enabled and not self.strength_model == self.strength_clip == 0


def read_lora_rows(text: str) -> list[LoraRow]:
    """The rows of a text, in its order; an empty text has none.

    Raises:
        CrucibleError: the text is no JSON list, or a row is wrong; the message says which.
    """
    try:
        rows = json.loads(text.strip() or "[]")
    except RecursionError:
        raise CrucibleError(
            f"The rows of the LoRA stack are lists within lists without end, so no LoRA can be read from them. Write a "
            f"list like [{EXAMPLE}]."
        ) from None
    except json.JSONDecodeError as error:
        raise CrucibleError(
            f"The rows of the LoRA stack are no valid JSON: {error.msg} in line {error.lineno}, column {error.colno}, "
            f"so no LoRA can be read from them. Write a list like [{EXAMPLE}]."
        ) from None
    if not isinstance(rows, list):
        raise CrucibleError(
            f"The rows of the LoRA stack are {_shown(rows)}, and not a list. Write one with an object for each LoRA, "
            f"like [{EXAMPLE}]."
        )
    return [_read_row(row, f"Row {number} of the LoRA stack") for number, row in enumerate(rows, start=1)]


def _read_row(row: Any, where: str) -> LoraRow:
    if not isinstance(row, dict):
        raise CrucibleError(f"{where} is {_shown(row)}, and not an object. Write it like {EXAMPLE}.")
    for key in row:
        if key not in KEYS:
            nearest = nearest_names(key, KEYS)
            meant = f"Did you mean {nearest[0]}?" if nearest else f"The keys are {', '.join(KEYS)}."
            raise CrucibleError(f"{where} has the key {key!r}, which is none that a row has. {meant}")
    for key in ("name", "strength_model"):
        if key not in row:
            raise CrucibleError(f"{where}, {_shown(row)}, has no {key}. Write it like {EXAMPLE}.")
    name, enabled = row["name"], row.get("enabled", True)
    if not isinstance(name, str):
        raise CrucibleError(f'{where} has the name {_shown(name)}. Write the file\'s name, like "ink.safetensors".')
    if not isinstance(enabled, bool):
        raise CrucibleError(f"{where} has enabled = {_shown(enabled)}. Write true or false, without quotes.")
    strength_model = _read_strength(row, "strength_model", where)
    strength_clip = _read_strength(row, "strength_clip", where) if "strength_clip" in row else strength_model
    read = LoraRow(name, strength_model, strength_clip, enabled)
    if read.acts and not name:
        raise CrucibleError(f"{where} is on and names no file. Choose one, or remove the row or switch it off.")
    return read


def _read_strength(row: dict[str, Any], key: str, where: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAXIMUM_STRENGTH:
        raise CrucibleError(
            f"{where} has {key} = {_shown(value)}, which is no strength. Write a number from -{MAXIMUM_STRENGTH} to "
            f"{MAXIMUM_STRENGTH}, without quotes, like 0.8."
        )
    return float(value)


def _shown(value: Any) -> str:
    """As it is written in JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
