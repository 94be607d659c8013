"""Stacks of LoRAs as text, as the LoRA Stack node stores them and as people or programs can write them.

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
    """One LoRA of a stack; `name` is the file's name as `lora_stack.listed_name` takes it, or "None" for no LoRA."""

    name: str
    strength_model: float
    strength_clip: float
    enabled: bool

    @property
    def acts(self) -> bool:
        """Whether the row is enabled, names a LoRA and has a strength other than 0."""
        return self.enabled and self.name != "None" and not self.strength_model == self.strength_clip == 0


def read_lora_rows(text: str) -> list[LoraRow]:
    """Read the rows of a stack from its text, in order; an empty text has none.

    Raises:
        CrucibleError: the text is not a JSON list, or a row is invalid; the message says which.
    """
    try:
        rows = json.loads(text.strip() or "[]")
    except RecursionError:
        raise CrucibleError(
            f"The text of the LoRA stack is nested too deeply, so no LoRA can be read from it. Write a list like "
            f"[{EXAMPLE}]."
        ) from None
    except json.JSONDecodeError as error:
        raise CrucibleError(
            f"The text of the LoRA stack is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            f"So no LoRA can be read from it. Write a list like [{EXAMPLE}]."
        ) from None
    if not isinstance(rows, list):
        raise CrucibleError(
            f"The text of the LoRA stack is {_shown(rows)}, which is not a list. Write a list with an object for each "
            f"LoRA, like [{EXAMPLE}]."
        )
    return [_read_row(row, f"Row {number} of the LoRA stack") for number, row in enumerate(rows, start=1)]


def _read_row(row: Any, where: str) -> LoraRow:
    if not isinstance(row, dict):
        raise CrucibleError(f"{where} is {_shown(row)}, which is not an object. Write it like {EXAMPLE}.")
    for key in row:
        if key not in KEYS:
            nearest = nearest_names(key, KEYS)
            meant = f"Did you mean {nearest[0]}?" if nearest else f"The keys are {', '.join(KEYS)}."
            raise CrucibleError(f"{where} has the unknown key {key!r}. {meant}")
    for key in ("name", "strength_model"):
        if key not in row:
            raise CrucibleError(f"{where}, {_shown(row)}, has no {key}. Write it like {EXAMPLE}.")
    name, enabled = row["name"], row.get("enabled", True)
    if not isinstance(name, str):
        raise CrucibleError(f'{where} has the name {_shown(name)}. Write a file name in quotes: "ink.safetensors".')
    if not isinstance(enabled, bool):
        raise CrucibleError(f"{where} has enabled = {_shown(enabled)}. Write true or false, without quotes.")
    strength_model = _read_strength(row, "strength_model", where)
    strength_clip = _read_strength(row, "strength_clip", where) if "strength_clip" in row else strength_model
    read = LoraRow(name, strength_model, strength_clip, enabled)
    if read.acts and not name:
        raise CrucibleError(f"{where} is on but names no file. Choose one, remove the row, or switch it off.")
    return read


def _read_strength(row: dict[str, Any], key: str, where: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAXIMUM_STRENGTH:
        raise CrucibleError(
            f"{where} has {key} = {_shown(value)}, which is not a valid strength. Write a number from "
            f"-{MAXIMUM_STRENGTH} to {MAXIMUM_STRENGTH}, without quotes, like 0.8."
        )
    return float(value)


def _shown(value: Any) -> str:
    """Return the value as JSON, shortened if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
