"""Find the trigger words of a LoRA in its metadata, or in files that other tools keep next to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .lora_sidecars import Sidecar, clean_words, parsed

_STATED = (
    *("modelspec.trigger_phrase", "trained_words", "modelspec.trigger_words", "ss_trigger_words"),
    *("trigger_words", "trigger_word", "trigger_phrase", "activation text"),
)
"""Entries of the metadata in which programs state trigger words; SimpleTuner writes trained_words."""

NEARLY_EVERY = 0.9
"""The share of captions that must contain a trigger word; some tools leave it out of a few."""

MAX_TAGS, MIN_CAPTIONS = 3, 3
"""The most tags in common, as more describe the images rather than name their subject, and the fewest captions, as two
images have almost anything in common."""


def trigger_words(metadata: Mapping[str, str], sidecars: Iterable[Sidecar] = ()) -> tuple[tuple[str, ...], str]:
    """Return the trigger words, and where they were found as shown to users; both are empty if none were found.

    The trainer's entry in the metadata comes first, then the user's own notes, then tags in nearly every caption.
    """
    for key in _STATED:
        if words := clean_words(_stated(metadata.get(key, ""))):
            return words, "from the file"
    if words := clean_words(_of_ai_toolkit(metadata)):
        return words, "from the file"
    for sidecar in sidecars:
        if sidecar.trigger_words:
            return sidecar.trigger_words, f"from {sidecar.file}"
    if words := clean_words(_common_tags(metadata)):
        return words, "in nearly all captions that it was trained on"
    return (), ""


def _stated(text: str) -> list[str]:
    """Return the words of an entry, which some programs write as a JSON list."""
    words = parsed(text) if text.startswith("[") else None
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else [text]


def _of_ai_toolkit(metadata: Mapping[str, str]) -> list[str]:
    """Return the trigger word as ai-toolkit writes it: a folder called after it, in which it occurs once."""
    return [
        word
        for folder, frequency, _ in _tagged_folders(metadata)
        for word in frequency
        if frequency == {word: 1} and folder == f"1_{word}"
    ]


def _common_tags(metadata: Mapping[str, str]) -> list[str]:
    tags: dict[str, None] = {}
    for _, frequency, images in _tagged_folders(metadata):
        counts = {tag: n for tag, n in frequency.items() if isinstance(n, int) and not isinstance(n, bool)}
        captions = images or max(counts.values(), default=0)
        common = [tag for tag, n in counts.items() if n >= NEARLY_EVERY * captions]
        if captions >= MIN_CAPTIONS and len(common) <= MAX_TAGS:
            tags.update(dict.fromkeys(common))
    return list(tags)


def _tagged_folders(metadata: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield each folder of training images, how often each tag occurs in it, and its number of images (0 if unknown).

    kohya's trainer writes them as ss_tag_frequency with ss_dataset_dirs, or as both in each entry of ss_datasets.
    """
    datasets = parsed(metadata.get("ss_datasets"))
    parts = [(metadata.get("ss_tag_frequency"), metadata.get("ss_dataset_dirs"))]
    if isinstance(datasets, list):
        parts += [(one.get("tag_frequency"), one.get("dataset_dirs")) for one in datasets if isinstance(one, dict)]
    for frequencies, folders in parts:
        frequencies, folders = parsed(frequencies), parsed(folders)
        if not isinstance(frequencies, dict):
            continue
        for folder, frequency in frequencies.items():
            about = folders.get(folder) if isinstance(folders, dict) else None
            images = about.get("img_count") if isinstance(about, dict) else 0
            if isinstance(frequency, dict):
                yield folder, frequency, images if isinstance(images, int) else 0
