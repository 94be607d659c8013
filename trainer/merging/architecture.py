"""Decide which architecture's names the layers of LoRAs have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import CrucibleError
from ..formats.adapter_keys import layer_sizes
from ..formats.architectures import ARCHITECTURES, Architecture
from ..formats.identify import Identified, architecture_names, identified
from ..formats.layer_names import kohya_key
from ..formats.lora_model import LoraModel
from ..formats.names import Place, layer_names, place_of
from ..formats.spelling import flat, names_text_encoder

AUTO = "auto"


def architecture_of_all(
    loras: Sequence[LoraModel], named: str = AUTO, of_base: Iterable[Architecture] = ()
) -> Architecture:
    """Return the architecture that all LoRAs are for.

    Several can be possible. If all of them have the layers at the same places, it makes no difference to the layers,
    and the result is a row with the names of all. If not, the row has no table, so that the layers keep the names that
    they have in the files. Only for toys, whose sizes are those of no published model, the names alone decide: for the
    architecture in which the layers already have ComfyUI's names, or else for the one that most agree with.

    Args:
        loras: the LoRAs.
        named: the id of the architecture that the user names, or `AUTO`.
        of_base: the architectures that the base model can have; empty if there is none or it is not known.

    Raises:
        CrucibleError: the LoRAs are for different architectures, or not for the named one.
    """
    shapes = [{key: tensor.shape for key, tensor in lora.items()} for lora in loras]
    found = [identified(some, lora.metadata) for some, lora in zip(shapes, loras, strict=True)]
    names = [[*layer_sizes(some)] for some in shapes]
    if named != AUTO:
        return _named(ARCHITECTURES[named], loras, names)
    possible = _common(loras, found, names)
    base = tuple(of_base)
    if narrowed := tuple(row for row in possible if row in base):
        possible = narrowed
    elif not possible and len(base) == 1:
        possible = base
    if not possible:
        return ARCHITECTURES["unknown"]
    all_names = [name for some in names for name in some]
    groups = _agreeing(possible, all_names)
    if len(groups) > 1 and not any(one.architectures and one.published for one in found):
        groups = [_chosen(groups, all_names)]
    if len(groups) > 1:
        return replace(ARCHITECTURES["unknown"], name=architecture_names(possible))
    return _one_of(groups[0])


def undecided_text(architecture: Architecture) -> str:
    """Return what users should know if it is not known whose layer names a LoRA has; empty if it is."""
    if architecture.id != "unknown":
        return ""
    known = architecture is not ARCHITECTURES["unknown"]
    reason = f"It can be for {architecture.name}" if known else "Its architecture is not known"
    return (
        f"{reason}, so the layers keep the names that they have in the file, which work wherever the file works. "
        "To have them renamed, name the architecture (on the command line: --architecture)."
    )


def _named(architecture: Architecture, loras: Sequence[LoraModel], names: Sequence[Sequence[str]]) -> Architecture:
    for lora, some in zip(loras, names, strict=True):
        if foreign := _foreign_layer(some, [architecture]):
            raise CrucibleError(
                f"{lora.name} is not for {architecture.name}, the architecture that was named: it has none of that "
                f"model's layers (its first is {foreign}). With wrong names, the LoRA would have no effect. Name the "
                "architecture that it was trained on, or leave it at auto."
            )
    return architecture


def _common(
    loras: Sequence[LoraModel], found: Sequence[Identified], names: Sequence[Sequence[str]]
) -> tuple[Architecture, ...]:
    common: tuple[Architecture, ...] = ()
    first: LoraModel | None = None
    for lora, one in zip(loras, found, strict=True):
        if not one.architectures:
            continue
        if first is None:
            first, common = lora, one.architectures
        both = tuple(row for row in common if row in one.architectures)
        if not both:
            raise CrucibleError(
                f"{first.name} is for {architecture_names(common)}, and {lora.name} is for "
                f"{architecture_names(one.architectures)}. LoRAs for different base models cannot be merged; leave one "
                "of them out."
            )
        common = both
    for lora, one, some in zip(loras, found, names, strict=True):
        if first is None or one.architectures:
            continue
        if foreign := _foreign_layer(some, common):
            raise CrucibleError(
                f"{first.name} is for {architecture_names(common)}, and {lora.name} has none of that model's layers "
                f"(its first is {foreign}). LoRAs for different base models cannot be merged; leave one of them out."
            )
    return common


def _foreign_layer(names: Sequence[str], architectures: Sequence[Architecture]) -> str | None:
    """Return the first layer beside the text encoders if none of these has a place in any of the architectures."""
    layers = [name for name in names if not names_text_encoder(name)]
    placed = any(place_of(name, row) for row in architectures for name in layers)
    return layers[0] if layers and not placed else None


def _agreeing(possible: Sequence[Architecture], names: Sequence[str]) -> list[list[Architecture]]:
    """Return the architectures in groups that have all layers at the same places."""
    groups: dict[tuple[Place, ...], list[Architecture]] = {}
    for row in possible:
        groups.setdefault(tuple(_place(name, row) for name in names), []).append(row)
    return list(groups.values())


def _place(name: str, architecture: Architecture) -> Place:
    if (place := place_of(name, architecture)) is not None:
        return place
    return Place(name if names_text_encoder(name) else kohya_key(flat(name)))


def _chosen(groups: Sequence[list[Architecture]], names: Sequence[str]) -> list[Architecture]:
    natively = [group for group in groups if all(_is_native(name, group[0]) for name in names)]
    return natively[0] if len(natively) == 1 else max(groups, key=len)


def _is_native(name: str, architecture: Architecture) -> bool:
    place = place_of(name, architecture)
    return place is None or flat(layer_names(architecture)[place.key].native) == flat(name)


def _one_of(rows: Sequence[Architecture]) -> Architecture:
    """Return the row for LoRAs that can be for several architectures with the same layers."""
    if len(rows) == 1:
        return rows[0]
    both = replace(rows[0], name=architecture_names(rows), modelspec="", implementation="", base_model_version="")
    if len({(row.prefix, row.naming) for row in rows}) > 1:  # kohya's format is the one that ComfyUI reads for all
        both = replace(both, prefix="lora_unet_", naming="native")
    return both
