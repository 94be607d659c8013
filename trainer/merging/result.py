"""Write LoRA files that are made from other LoRAs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import CrucibleError
from ..formats.architectures import Architecture, Form
from ..formats.delta import kind_of, scale_of
from ..formats.forms import to_form
from ..formats.lora_file import DOWN, dtype_of
from ..formats.lora_model import LoraModel
from ..formats.names import place_of
from ..formats.read_back import save_layers
from ..formats.trigger_words import trigger_words
from ..formats.universal import Layers
from ..messages.wording import size_text
from .architecture import architecture_of_all, undecided_text
from .ingredients import Strengths, embeddings_note, embeddings_of, ingredients
from .merge import CPU, BaseWeight, merge
from .recipe import Recipe

_OF_THE_BASE = (
    *("ss_base_model_version", "ss_sd_model_name", "ss_sd_model_hash", "ss_v2"),
    *("modelspec.prediction_type", "modelspec.resolution", "crucible.base_model"),
)
"""Metadata about the base model, which is kept if all parents that have it agree."""


_OF_THE_FILE = ("lora_adapter_metadata", "sshs_legacy_hash", "sshs_model_hash", "modelspec.hash_sha256", "format")
"""Metadata that would be wrong for the new file; diffusers would take ranks and alphas from the first of these."""


def metadata_of(
    name: str, stack: Sequence[Strengths], lora: Layers, architecture: Architecture, made_by: Mapping[str, Any]
) -> dict[str, str]:
    """Return the metadata of a LoRA that was made from others.

    It lists the parents with hashes and strengths, and the trigger words of all. If there is only one parent, the
    metadata about its training is kept.

    Args:
        name: the name of the new LoRA.
        stack: the parents and their strengths.
        lora: the layers of the new LoRA.
        architecture: the architecture that it is for.
        made_by: how it was made, for crucible.made_by: {"method": "ties", "density": 0.5}.
    """
    parents = [one.lora.metadata for one in stack]
    found: dict[str, str] = {}
    if len(parents) == 1:
        found |= {key: value for key, value in parents[0].items() if key not in _OF_THE_FILE}
    elif architecture.id != "unknown" and architecture.modelspec:
        found["modelspec.architecture"] = architecture.modelspec
        found["modelspec.implementation"] = architecture.implementation
        found["ss_base_model_version"] = architecture.base_model_version
    for key in _OF_THE_BASE:
        values = {metadata[key] for metadata in parents if metadata.get(key)}
        if len(values) == 1:
            found[key] = values.pop()
    if words := dict.fromkeys(word for metadata in parents for word in trigger_words(metadata)[0]):
        found["modelspec.trigger_phrase"] = ", ".join(words)
    if {kind_of(layer) for layer in lora.layers.values()} == {"lora"}:
        rank, alpha = max((len(layer[DOWN]), len(layer[DOWN]) * scale_of(layer)) for layer in lora.layers.values())
        found |= {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}
        found.pop("ss_network_args", None)  # can be those of another algorithm
    return found | {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": name,
        "modelspec.description": f"Made with LoRA Crucible from {', '.join(one.lora.name for one in stack)}.",
        "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ss_output_name": name,
        "crucible.version": __version__,
        "crucible.made_by": json.dumps(dict(made_by)),
        "crucible.parents": json.dumps([one.record() for one in stack], ensure_ascii=False),
    }


def save(
    path: Path,
    lora: Layers,
    stack: Sequence[Strengths],
    architecture: Architecture,
    made_by: Mapping[str, Any],
    *,
    form: Form = "auto",
    dtype: torch.dtype | None = None,
) -> LoraModel:
    """Write a LoRA that was made from others, and return it.

    Args:
        path: the file to write.
        lora: the layers of the new LoRA.
        stack: the parents and their strengths.
        architecture: the architecture that it is for.
        made_by: how it was made, for crucible.made_by.
        form: the format of the file.
        dtype: the precision of the file; None for that of the parents.

    Raises:
        CrucibleError: the format has no place for a layer or an embedding, a value does not fit into the precision, a
            layer does not come out as it is, or the file cannot be written.
    """
    metadata = metadata_of(path.stem, stack, lora, architecture, made_by)
    tensors = to_form(lora, architecture, form, dtype or dtype_of(*(one.lora for one in stack)))
    embeddings = embeddings_of([one.lora for one in stack])
    if embeddings and form in ("diffusers", "peft"):
        raise CrucibleError(
            f"{stack[0].lora.name} carries an embedding beside its LoRA ({next(iter(embeddings))}), which {form}'s "
            "format has no place for, so it would be lost. Choose --to kohya, which keeps it, or export the LoRA "
            "without its embedding from the program that made it."
        )
    tensors |= embeddings
    save_layers(path, lora.layers, tensors, metadata, partial(place_of, architecture=architecture))
    return LoraModel(tensors, path.name, metadata)


def merge_to_file(
    path: Path,
    stack: Sequence[Strengths],
    recipe: Recipe,
    base_weight: BaseWeight | None = None,
    progress: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device = CPU,
    architecture: Architecture | None = None,
) -> tuple[LoraModel, str]:
    """Merge LoRAs into a new file. For the arguments see `merge` and `save`; by default, the architecture is found out.

    Returns:
        the merged LoRA, and a report for the user.

    Raises:
        CrucibleError: as `merge` and `save`.
    """
    architecture = architecture or architecture_of_all([one.lora for one in stack])
    merged = merge(ingredients(stack, architecture), recipe, base_weight, progress, device)
    lora = save(path, merged.lora, stack, architecture, {"command": "merge", **recipe.facts()}, dtype=dtype)
    facts = ", ".join(f"{name} {value}" for name, value in recipe.facts().items() if value is not None)
    lines = [
        f"Merged for {architecture.name} ({facts}):",
        *(f"  {_strength_text(one)}  {one.lora.name}" for one in stack),
        *filter(None, [undecided_text(architecture)]),
        merged.error_text(),
        *embeddings_note([one.lora for one in stack]),
        f"Saved {path} ({size_text(path.stat().st_size)}).",
    ]
    if words := lora.metadata.get("modelspec.trigger_phrase"):
        lines.append(f"Trigger words: {words}")
    return lora, "\n".join(lines)


def _strength_text(one: Strengths) -> str:
    return f"{one.model:g}" if one.model == one.clip else f"{one.model:g} (text encoder {one.clip:g})"
