"""Summarize a LoRA as plain text for somebody who wants to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..messages.wording import size_text
from .adapter_keys import AdapterFacts, adapter_facts, split_key
from .architectures import Architecture
from .header import without_ending
from .identify import architecture_names, candidates, trainer_name
from .lora_sidecars import plain, read_sidecars
from .peft_scale import base_model_name, scale_text
from .trigger_words import trigger_words


@dataclass(frozen=True)
class LoraInfo:
    """The facts about a LoRA that matter for using it.

    Attributes:
        name: the name in ComfyUI's list of LoRAs; empty if it has none.
        size: the size of the tensors in bytes.
        architectures: the architectures that it can be for; empty if they are unknown.
        facts: its algorithms, ranks, alphas and number of layers.
        trainer: the program that made it; empty if it is unknown.
        base_model: the name of the language model that it was trained on; empty if it is unknown, or for pictures.
        trigger_words, trigger_source: the words, and where they were found.
        strength, strength_source: a good strength to start with, and why.
        notes: sentences about its scale, and about files next to it that could not be read.
    """

    name: str
    size: int
    architectures: tuple[Architecture, ...]
    facts: AdapterFacts
    trainer: str
    base_model: str
    trigger_words: tuple[str, ...]
    trigger_source: str
    strength: float
    strength_source: str
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the summary as text, one fact per line."""
        lines = [
            f"{self.name or 'The connected LoRA'} ({size_text(self.size)})",
            f"Made for: {architecture_names(self.architectures)}",
            f"Kind: {_kind(self.facts)}",
            *([f"Trained with: {self.trainer}"] if self.trainer else []),
            *([f"Trained on: {self.base_model}"] if self.base_model else []),
            self._trigger_line(),
            f"Strength to start with: {self.strength:g} ({self.strength_source})",
            *([f"In A1111 and Forge: {self.prompt_tag}"] if self.name and not self.is_of_language_model else []),
            *self.notes,
        ]
        return "\n".join(lines)

    @property
    def is_of_language_model(self) -> bool:
        """Whether it is for a language model rather than for one that draws."""
        return any(one.id == "language" for one in self.architectures)

    @property
    def prompt_tag(self) -> str:
        """The tag that loads the LoRA in an A1111 prompt, which names it without folder and file extension."""
        return f"<lora:{without_ending(Path(self.name.replace(chr(92), '/')).name)}:{self.strength:g}>"

    def _trigger_line(self) -> str:
        if not self.trigger_words:
            return "Trigger words: none found in the file"
        return f"Trigger words: {', '.join(self.trigger_words)} ({self.trigger_source})"


def lora_info(
    tensors: Mapping[str, Tensor], name: str, metadata: Mapping[str, str], path: Path | None = None
) -> LoraInfo:
    """Collect what the keys, shapes and metadata of a LoRA and the files next to it reveal.

    Args:
        tensors: the LoRA's tensors by key.
        name: the name in ComfyUI's list of LoRAs; empty if it has none.
        metadata: the file's metadata.
        path: the LoRA's file, next to which other tools may keep notes; None if it has no file.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    alphas = [
        float(tensor)
        for key, tensor in tensors.items()
        if tensor.numel() == 1 and (parts := split_key(key)) and parts[1] == "alpha"
    ]
    sidecars = [] if path is None else read_sidecars(path)
    words, source = trigger_words(metadata, sidecars)
    architectures = candidates(shapes, metadata)
    of_language = any(one.id == "language" for one in architectures)
    preferred = next((sidecar for sidecar in sidecars if sidecar.strength is not None), None)
    if preferred is not None and preferred.strength is not None:
        strength, why = preferred.strength, f"from {preferred.file}"
    elif "crucible.version" in metadata:
        what = "answers" if of_language else "image"
        strength, why = 1.0, f"as in the samples of its training; 0.6 to 0.8 if it dominates the {what}"
    elif of_language:
        strength, why = 1.0, "as other programs use it; lower if it dominates the answers"
    else:
        strength, why = 0.8, "a rule of thumb; 0.6 to 1.0 is usual"
    notes = ["" if path is None else scale_text(path, metadata), *(sidecar.problem for sidecar in sidecars)]
    return LoraInfo(
        name=plain(name),
        size=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        architectures=architectures,
        facts=adapter_facts(shapes, alphas),
        trainer=plain(trainer_name(metadata), 100),
        base_model=plain(base_model_name(metadata, path), 100) if of_language else "",
        trigger_words=words,
        trigger_source=source,
        strength=strength,
        strength_source=why,
        notes=tuple(filter(None, notes)),
    )


def _kind(facts: AdapterFacts) -> str:
    parts = [" and ".join(facts.algorithms) or "unknown"]
    if facts.ranks:
        parts.append(_values("rank", facts.ranks))
        parts.append(_values("alpha", facts.alphas) if facts.alphas else "no alpha (so it equals the rank)")
    return ", ".join([*parts, f"{facts.layers} layer{'' if facts.layers == 1 else 's'}"])


def _values(what: str, found: tuple[float, ...]) -> str:
    if len(found) == 1:
        return f"{what} {found[0]:g}"
    return f"{what} {min(found):g} to {max(found):g} (mostly {found[0]:g})"


def strengths_note(strengths: Mapping[str, float], what: str = "image") -> str:
    """Return advice on what to lower if the strengths of all LoRAs on a model add up to more than 1; empty otherwise.

    Args:
        strengths: the strength of each LoRA on the model, by name.
        what: what the model makes: "image", or "answer" for a language model.
    """
    total = sum(map(abs, strengths.values()))
    if total <= 1 + 1e-9:
        return ""
    if len(strengths) == 1:
        ((name, strength),) = strengths.items()
        return (
            f"{name} has strength {strength:g}. Above 1, a LoRA easily distorts the {what}; lower it if that happens."
        )
    lowered = ", ".join(f"{name} to {strength / total:.2f}" for name, strength in strengths.items())
    largest = max(strengths, key=lambda name: abs(strengths[name]))
    return (
        f"The strengths of the {len(strengths)} LoRAs add up to {total:g}. Above 1, they easily distort the {what}; "
        f"if that happens, lower {largest} first, or all of them in proportion ({lowered})."
    )
