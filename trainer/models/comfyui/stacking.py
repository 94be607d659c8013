"""Several LoRAs on one model, one after the other, and what to tell of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CrucibleError
from ...formats.identify import architecture_names
from ...formats.lora_info import ENDING, LoraInfo, lora_info, strengths_note
from ...formats.lora_model import load_lora
from ...formats.lora_stack import StackEntry, listed_name
from .applying import Applied, with_lora

STRENGTHS = "crucible_lora_strengths"
"""What is attached to a MODEL: the strength of each LoRA that these nodes have put on it, for the sum of a chain."""

FindFile = Callable[[str], Path]
"""The file of a name in the list of LoRAs. Raises CrucibleError where there is none."""


@dataclass(frozen=True)
class OwnLora:
    """The LoRA that comes after a stack: a name in the list, or a LoRA in memory."""

    lora: str | Mapping[str, Tensor]
    strength_model: float
    strength_clip: float


@dataclass(frozen=True)
class Stacked:
    """
    Attributes:
        lora_stack: all that was applied, as the socket carries it; without a LoRA that has no file.
        trigger_words: of all, with commas. info: for people.
    """

    model: Any
    clip: Any
    lora_stack: list[tuple[str, float, float]]
    trigger_words: str
    info: str


def apply_stack(
    model: Any,
    clip: Any,
    stack: Sequence[StackEntry],
    own: OwnLora | None,
    listed: Sequence[str],
    find_file: FindFile,
) -> Stacked:
    """Put a stack and one more LoRA on MODEL and CLIP.

    Raises:
        CrucibleError: a LoRA cannot be read, or does not fit the model.
    """
    entries = [entry for entry in stack if entry.strength_model or entry.strength_clip]
    loras: list[tuple[Mapping[str, Tensor], str, StackEntry]] = [
        (load_lora(find_file(entry.name), entry.name), entry.name, entry) for entry in entries
    ]
    if own is not None:
        loras.append(_own(own, listed, find_file))

    words: dict[str, None] = {}
    texts: list[str] = []
    strengths: dict[str, float] = dict(model.get_attachment(STRENGTHS) or {})
    for lora, name, entry in loras:
        applied = with_lora(model, clip, lora, entry.strength_model, entry.strength_clip)
        model, clip = applied.model, applied.clip
        path = find_file(name) if name else None
        info = lora_info(lora, name or getattr(lora, "name", ""), getattr(lora, "metadata", {}), path)
        words.update(dict.fromkeys(info.trigger_words))
        texts.append("\n".join([info.text(), *_notes(info, applied, bool(name))]))
        shown = info.name or "the connected LoRA"
        strengths[shown] = strengths.get(shown, 0.0) + abs(entry.strength_model)
    if loras and (note := strengths_note(strengths)):
        texts.append(note)
    if any(entry.strength_model for _, _, entry in loras):
        model.set_attachments(STRENGTHS, strengths)
    return Stacked(
        model,
        clip,
        [entry.as_tuple() for _, name, entry in loras if name],
        ", ".join(words),
        "\n\n".join(filter(None, texts)) or "No LoRA is applied here: model and CLIP pass through untouched.",
    )


def _own(own: OwnLora, listed: Sequence[str], find_file: FindFile) -> tuple[Mapping[str, Tensor], str, StackEntry]:
    """The LoRA, and its name in the list; empty for one that was never saved."""
    if isinstance(own.lora, str):
        name = own.lora
        lora: Mapping[str, Tensor] = load_lora(find_file(name), name)
    else:
        lora, name = own.lora, _saved_name(getattr(own.lora, "name", ""), listed)
    return lora, name, StackEntry(name, own.strength_model, own.strength_clip)


def _saved_name(name: str, listed: Sequence[str]) -> str:
    try:
        return listed_name(name.removesuffix(ENDING) + ENDING, listed) if name else ""
    except CrucibleError:
        return ""


def _notes(info: LoraInfo, applied: Applied, is_saved: bool) -> list[str]:
    """How it went with this model."""
    count = applied.matched + len(applied.unmatched) + applied.without_clip
    notes = [f"Matching keys: {applied.matched} of {count}"]
    if applied.unmatched:
        first = ", ".join(applied.unmatched[:3])
        notes.append(
            f"Warning: {len(applied.unmatched)} keys have no place in {applied.architecture.name} and are left out: "
            f"{first}{', …' if len(applied.unmatched) > 3 else ''}. The LoRA acts less than it was trained to; it may "
            "be for a variant of this model."
        )
    if applied.without_clip:
        notes.append(
            f"Its text-encoder part ({applied.without_clip} keys) is left out, because no CLIP is connected. Connect "
            "the clip of the loader to use it."
        )
    known = applied.architecture.id != "unknown" and info.architectures
    if known and applied.architecture not in info.architectures:
        notes.append(
            f"Warning: it was made for {architecture_names(info.architectures)}, and this model is "
            f"{applied.architecture.name}."
        )
    if not is_saved:
        notes.append(
            "It has no file, so it is applied here but left out of lora_stack. Save it with Save LoRA Weights, and "
            "choose the file, to have it in the stack."
        )
    return notes
