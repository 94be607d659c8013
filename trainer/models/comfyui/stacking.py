"""Applying several LoRAs to one model, one after another, and describing the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CrucibleError
from ...formats.identify import architecture_names
from ...formats.lora_info import LoraInfo, lora_info, strengths_note
from ...formats.lora_model import load_lora
from ...formats.lora_stack import StackEntry, listed_name
from .applying import Applied, with_lora

STRENGTHS = "crucible_lora_strengths"
"""The attachment that stores the strength of each LoRA applied by these nodes, to add them up in a chain. It is on a
MODEL, or on a CLIP for LoRAs that act there alone."""

FindFile = Callable[[str], Path]
"""A function that returns the file of a name in the list of LoRAs, or raises CrucibleError if there is none."""


@dataclass(frozen=True)
class OwnLora:
    """A LoRA that a node applies after its stack.

    Attributes:
        lora: a name in the list of LoRAs, or a LoRA in memory.
        strength_model, strength_clip: the strengths on MODEL and CLIP.
    """

    lora: str | Mapping[str, Tensor]
    strength_model: float
    strength_clip: float


@dataclass(frozen=True)
class Stacked:
    """The result of applying a stack of LoRAs.

    Attributes:
        model, clip: clones with all LoRAs applied, or the inputs if there was nothing to apply.
        lora_stack: the applied LoRAs in the form that the lora_stack socket carries, without any that has no file.
        trigger_words: the trigger words of all LoRAs, separated by commas.
        info: a description of each LoRA and of how it fits the model, to show to the user.
        of_language_model: whether one of the LoRAs acts on a language model, and is not meant for pictures.
    """

    model: Any
    clip: Any
    lora_stack: list[tuple[str, float, float]]
    trigger_words: str
    info: str
    of_language_model: bool


def apply_stack(
    model: Any,
    clip: Any,
    stack: Sequence[StackEntry],
    own: OwnLora | None,
    listed: Sequence[str],
    find_file: FindFile,
) -> Stacked:
    """Apply a stack of LoRAs, and then optionally one more, to MODEL and CLIP.

    Args:
        model, clip: the inputs of the node; one of them may be None.
        stack: the LoRAs to apply first.
        own: the LoRA to apply last, if any.
        listed: the names in the list of LoRAs.
        find_file: a function that returns the file of a name in the list.

    Raises:
        CrucibleError: there is neither a MODEL nor a CLIP, or a LoRA cannot be read or does not fit.
    """
    if model is None and clip is None:
        raise CrucibleError(
            "Neither a MODEL nor a CLIP is connected to this node, so there is nothing that a LoRA could act on. "
            "Connect the model of your loader, or both model and clip; for a LoRA of a language model, clip is enough."
        )
    entries = [entry for entry in stack if entry.strength_model or entry.strength_clip]
    loras: list[tuple[Mapping[str, Tensor], str, StackEntry]] = [
        (load_lora(find_file(entry.name), entry.name), entry.name, entry) for entry in entries
    ]
    if own is not None:
        loras.append(_own(own, listed, find_file))

    words: dict[str, None] = {}
    texts: list[str] = []
    on_model, on_clip, of_language = _Strengths(model), _Strengths(clip and clip.patcher), False
    for lora, name, entry in loras:
        applied = with_lora(model, clip, lora, entry.strength_model, entry.strength_clip)
        model, clip = applied.model, applied.clip
        path = find_file(name) if name else None
        info = lora_info(lora, name or getattr(lora, "name", ""), getattr(lora, "metadata", {}), path)
        words.update(dict.fromkeys(info.trigger_words))
        texts.append("\n".join([info.text(), *_notes(info, applied, entry, bool(name))]))
        # A LoRA that may be for the text encoder of an image model is meant to change pictures.
        for_text = applied.of_language_model and [one.id for one in info.architectures] == ["language"]
        of_language = of_language or (for_text and entry.strength_clip != 0)
        if applied.on_clip_alone:
            on_clip.add(info.name, entry.strength_clip)
        else:
            on_model.add(info.name, entry.strength_model)
    made_by_clip = "answer" if of_language else "image"
    for patcher, strengths, made in ((model, on_model, "image"), (clip and clip.patcher, on_clip, made_by_clip)):
        if loras and (note := strengths_note(strengths.by_name, made)):
            texts.append(note)
        if strengths.changed:
            patcher.set_attachments(STRENGTHS, strengths.by_name)
    return Stacked(
        model,
        clip,
        [entry.as_tuple() for _, name, entry in loras if name],
        ", ".join(words),
        "\n\n".join(filter(None, texts)) or "No LoRA is applied here: model and CLIP pass through unchanged.",
        of_language,
    )


class _Strengths:
    """The strengths of the LoRAs that act on a MODEL or a CLIP, those of earlier nodes included.

    Attributes:
        by_name: the strengths by the LoRA's name.
        changed: whether one that is not 0 was added, so that the MODEL or CLIP is a clone of its own.
    """

    def __init__(self, patcher: Any) -> None:
        self.by_name: dict[str, float] = {} if patcher is None else dict(patcher.get_attachment(STRENGTHS) or {})
        self.changed = False

    def add(self, name: str, strength: float) -> None:
        """Add the strength of a LoRA; "" is the name of one without a file."""
        shown = name or "the connected LoRA"
        self.by_name[shown] = self.by_name.get(shown, 0.0) + strength
        self.changed = self.changed or strength != 0


def _own(own: OwnLora, listed: Sequence[str], find_file: FindFile) -> tuple[Mapping[str, Tensor], str, StackEntry]:
    """Return the LoRA, its name in the list (empty if it was never saved) and its entry in the stack."""
    if isinstance(own.lora, str):
        name = own.lora
        lora: Mapping[str, Tensor] = load_lora(find_file(name), name)
    else:
        lora, name = own.lora, _saved_name(getattr(own.lora, "name", ""), listed)
    return lora, name, StackEntry(name, own.strength_model, own.strength_clip)


def _saved_name(name: str, listed: Sequence[str]) -> str:
    try:
        return listed_name(name, listed) if name else ""
    except CrucibleError:
        return ""


def _notes(info: LoraInfo, applied: Applied, entry: StackEntry, is_saved: bool) -> list[str]:
    """Return lines that describe how well a LoRA fits the model."""
    count = applied.matched + len(applied.unmatched) + applied.without_clip + applied.without_model
    notes = [f"Matching keys: {applied.matched} of {count}"]
    if applied.unmatched:
        first = ", ".join(applied.unmatched[:3])
        notes.append(
            f"Warning: {len(applied.unmatched)} keys do not match {applied.target} and are skipped: "
            f"{first}{', …' if len(applied.unmatched) > 3 else ''}. The LoRA has less effect than it was trained to "
            "have. It may be for a variant of this model."
        )
    if applied.without_clip:
        notes.append(
            f"The text encoder part of the LoRA ({applied.without_clip} keys) is skipped, because no CLIP is "
            "connected. To use it, connect the CLIP output of the loader."
        )
    if applied.without_model:
        notes.append(
            f"The part of the LoRA for the model that draws ({applied.without_model} keys) is skipped, because no "
            "MODEL is connected. To use it, connect the MODEL output of the loader."
        )
    if applied.on_clip_alone and entry.strength_model != entry.strength_clip:
        notes.append(
            f"It acts on {applied.target} only, at strength_clip ({entry.strength_clip:g}); strength_model "
            f"({entry.strength_model:g}) does not count."
        )
    known = applied.architecture.id not in ("unknown", "language") and info.architectures
    if known and applied.architecture not in info.architectures:
        notes.append(
            f"Warning: the LoRA was made for {architecture_names(info.architectures)}, but this model is "
            f"{applied.architecture.name}."
        )
    if not is_saved:
        notes.append(
            "This LoRA has no file, so it is applied here but not included in lora_stack. To include it, save it with "
            "Save LoRA Weights and choose the saved file."
        )
    return notes
