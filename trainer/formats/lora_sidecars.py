"""Notes about a LoRA in files next to it, as other tools keep them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_WORDS, MAX_LENGTH = 20, 300
"""The most trigger words that are read, and the most characters of one; files can contain anything."""

MOST_STRENGTH = 20
"""The largest plausible strength; anything above is a mistake."""

MAX_SIDECAR = 10_000_000
"""The largest file of notes, in bytes, that is read. Civitai's contain a model's whole page, about 1% of this."""

ENDINGS = (
    ".json",  # A1111 and Forge, or SD.Next with Civitai's page
    ".metadata.json",  # LoRA Manager
    ".rgthree-info.json",  # rgthree's Power Lora Loader
    ".swarm.json",  # SwarmUI
    ".civitai.info",  # Civitai Helper and many downloaders
    ".cm-info.json",  # StabilityMatrix
    ".cminfo.json",  # Civicomfy
)
"""The endings of such files, those with the user's own words first. They stand after the LoRA's name or its stem."""

_WORDS = (
    *("activation text", "trainedWords", "TrainedWords", "trained_words", "trigger_words"),
    *("modelspec.trigger_phrase", "trigger_phrase"),
)


@dataclass(frozen=True)
class Sidecar:
    """The contents of a file of notes next to a LoRA.

    Attributes:
        file: the name of the file.
        trigger_words: the trigger words; may be empty.
        strength: the strength that the LoRA's owner prefers; None if the file has none.
        problem: a sentence that says why the file was skipped; empty if it was read.
    """

    file: str
    trigger_words: tuple[str, ...] = ()
    strength: float | None = None
    problem: str = ""


def plain(text: str, limit: int = MAX_LENGTH) -> str:
    """Return text on one line, without control characters and writing direction marks, cut to `limit` characters."""
    # A lone surrogate (Cs) cannot be sent to the browser.
    kept = (" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text[: 4 * limit])
    flat = " ".join("".join(kept).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def clean_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return words or phrases without surrounding commas and spaces, each once. An entry may list several."""
    parts = (re.sub(r"^[,\s]+|[,\s]+$", "", plain(word)) for word in words)
    return tuple(dict.fromkeys(part for part in parts if part))[:MAX_WORDS]


def parsed(value: Any) -> Any:
    """Parse JSON text, with None for invalid text; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def sidecar_paths(lora: Path) -> list[Path]:
    """Return the paths where other tools keep their notes about a LoRA."""
    return [path for ending in ENDINGS for path in (lora.with_suffix(ending), lora.with_name(lora.name + ending))]


def read_sidecars(lora: Path) -> list[Sidecar]:
    """Read the existing notes about a LoRA. A broken file is not an error, because it belongs to another tool."""
    return [_read(path, lora.name) for path in sidecar_paths(lora) if path.is_file()]


def _read(path: Path, lora: str) -> Sidecar:
    name = plain(path.name)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SIDECAR + 1)
        if len(content) > MAX_SIDECAR:
            return Sidecar(name, problem=f"{name} was not read: it is larger than {MAX_SIDECAR // 1_000_000} MB.")
        found = json.loads(content.removeprefix(b"\xef\xbb\xbf"))  # a mark that programs on Windows begin text with
    except OSError as error:
        return Sidecar(name, problem=f"{name} could not be read: {error.strerror or error}.")
    except (ValueError, RecursionError):
        return Sidecar(name, problem=f"{name} was skipped: it is not valid JSON.")
    if not isinstance(found, dict):
        return Sidecar(name, problem=f"{name} was skipped: it contains no notes about a LoRA.")
    return Sidecar(name, clean_words(_words(found, lora)), _strength(found))


def _words(found: Mapping[str, Any], lora: str) -> Iterator[str]:
    """Yield the trigger words in notes of any tool; LoRA Manager and SD.Next have them deeper inside."""
    for key in _WORDS:
        value = found.get(key)
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, dict) and (word.get("civitai") or word.get("user") or not word.get("metadata")):
                word = word.get("word")  # rgthree's; those from metadata alone are tags of the captions
            if isinstance(word, str):
                yield word
    versions = found.get("modelVersions")
    for inside in [found.get("civitai"), *_of_file(versions if isinstance(versions, list) else [], lora)]:
        if isinstance(inside, dict):
            yield from _words({key: value for key, value in inside.items() if key in _WORDS}, lora)


def _of_file(versions: list[Any], lora: str) -> list[Any]:
    """Return the version on a model's page at Civitai that has the LoRA's file, or the only one."""
    if len(versions) == 1:
        return versions
    return [
        version
        for version in versions
        if isinstance(version, dict)
        and isinstance(version.get("files"), list)
        and any(isinstance(file, dict) and file.get("name") == lora for file in version["files"])
    ]


def _strength(found: Mapping[str, Any]) -> float | None:
    tips = parsed(found.get("usage_tips"))  # LoRA Manager's
    for value in (found.get("preferred weight"), tips.get("strength") if isinstance(tips, dict) else None):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < abs(value) <= MOST_STRENGTH:
            return float(value)  # A1111 writes 0 if none was set
    return None
