"""Find the trigger words of a LoRA in its metadata, or in files that other tools keep next to it."""

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

NEARLY_EVERY = 0.9
"""The share of captions that must contain a trigger word; some tools leave it out of a few."""

MAX_TAGS, MIN_CAPTIONS = 3, 3
"""The most tags in common, as more describe the images rather than name their subject, and the fewest captions, as two
images have almost anything in common."""


@dataclass(frozen=True)
class Sidecar:
    """The contents of a file of notes next to a LoRA: A1111's <name>.json, or the <name>.civitai.info of several tools.

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


def sidecar_paths(lora: Path) -> tuple[Path, Path]:
    """Return the paths where other tools keep their notes about a LoRA."""
    return lora.with_suffix(".json"), lora.with_suffix(".civitai.info")


def read_sidecars(lora: Path) -> list[Sidecar]:
    """Read the existing notes about a LoRA. A broken file is not an error, because it belongs to another tool."""
    return [_read(path) for path in sidecar_paths(lora) if path.is_file()]


def _read(path: Path) -> Sidecar:
    name = plain(path.name)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SIDECAR + 1)
        if len(content) > MAX_SIDECAR:
            return Sidecar(name, problem=f"{name} was not read: it is larger than {MAX_SIDECAR // 1_000_000} MB.")
        found = json.loads(content)
    except OSError as error:
        return Sidecar(name, problem=f"{name} could not be read: {error.strerror or error}.")
    except (ValueError, RecursionError):
        return Sidecar(name, problem=f"{name} was skipped: it is not valid JSON.")
    if not isinstance(found, dict):
        return Sidecar(name, problem=f"{name} was skipped: it contains no notes about a LoRA.")
    listed = found.get("trainedWords")
    words = [found.get("activation text"), *(listed if isinstance(listed, list) else [])]
    return Sidecar(name, _clean(word for word in words if isinstance(word, str)), _strength(found))


def _strength(found: Mapping[str, Any]) -> float | None:
    value = found.get("preferred weight")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 < abs(value) <= MOST_STRENGTH else None  # A1111 writes 0 if none was set


def trigger_words(metadata: Mapping[str, str], sidecars: Iterable[Sidecar] = ()) -> tuple[tuple[str, ...], str]:
    """Return the trigger words, and where they were found as shown to users; both are empty if none were found.

    The trainer's entry in the metadata comes first, then the user's own notes, then tags in nearly every caption.
    """
    if words := _clean([metadata.get("modelspec.trigger_phrase", "")]):
        return words, "from the file"
    for sidecar in sidecars:
        if sidecar.trigger_words:
            return sidecar.trigger_words, f"from {sidecar.file}"
    if words := _clean(_common_tags(metadata)):
        return words, "in nearly all captions that it was trained on"
    return (), ""


def _clean(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words or phrases without surrounding commas and spaces, each once. An entry may list several."""
    parts = (re.sub(r"^[,\s]+|[,\s]+$", "", plain(word)) for word in words)
    return tuple(dict.fromkeys(part for part in parts if part))[:MAX_WORDS]


def _common_tags(metadata: Mapping[str, str]) -> list[str]:
    tags: dict[str, None] = {}
    for frequency, images in _tagged_folders(metadata):
        counts = {tag: n for tag, n in frequency.items() if isinstance(n, int) and not isinstance(n, bool)}
        captions = images or max(counts.values(), default=0)
        common = [tag for tag, n in counts.items() if n >= NEARLY_EVERY * captions]
        if captions >= MIN_CAPTIONS and len(common) <= MAX_TAGS:
            tags.update(dict.fromkeys(common))
    return list(tags)


def _tagged_folders(metadata: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield how often each tag occurs in a folder, and the folder's number of images (0 if it is unknown).

    kohya's trainer writes them as ss_tag_frequency with ss_dataset_dirs, or as both in each entry of ss_datasets.
    """
    datasets = _parsed(metadata.get("ss_datasets"))
    parts = [(metadata.get("ss_tag_frequency"), metadata.get("ss_dataset_dirs"))]
    if isinstance(datasets, list):
        parts += [(one.get("tag_frequency"), one.get("dataset_dirs")) for one in datasets if isinstance(one, dict)]
    for frequencies, folders in parts:
        frequencies, folders = _parsed(frequencies), _parsed(folders)
        if not isinstance(frequencies, dict):
            continue
        for folder, frequency in frequencies.items():
            about = folders.get(folder) if isinstance(folders, dict) else None
            images = about.get("img_count") if isinstance(about, dict) else 0
            if isinstance(frequency, dict):
                yield frequency, images if isinstance(images, int) else 0


def _parsed(value: Any) -> Any:
    """Parse JSON text, with None for invalid text; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
