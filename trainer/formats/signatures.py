"""Tell the architectures that a LoRA's layers can belong to, by their names and sizes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from .layer_tables.model_sizes import SIZES, SMALLEST, ModelSize
from .layer_tables.rows import Length
from .named_layers import Meaning, meanings, named_layer

Size = tuple[int | None, int | None]
"""A layer's outputs and inputs; None for one that the file does not reveal."""

_IN_ANY_TRANSFORMER = re.compile(r"transformer_blocks_#_attn1_to_\w+")
"""Layers that nearly all transformers in diffusers have, also those that there is no table for."""


@dataclass
class _Group:
    """The layers of one pattern."""

    sizes: set[Size] = field(default_factory=set)
    blocks: set[int] = field(default_factory=set)
    count: int = 0


@dataclass(frozen=True)
class Match:
    """The architectures that layers can belong to.

    Attributes:
        ids: the architectures, in the order of the tables.
        published: whether the sizes are those of published models, rather than of a toy.
        certain: whether the layers say enough to name the architectures. If not, many others have such layers too, for
            which there are no tables.
    """

    ids: tuple[str, ...]
    published: bool = True
    certain: bool = True


def match_tables(sizes: Mapping[str, Size]) -> Match:
    """Return the architectures whose tables have the layers of a file.

    All layers, or at least most of them, must be in the table, and their sizes must be those of one published model:
    the number of blocks, and the outputs and inputs of each layer. If there is no such model, models under `SMALLEST`
    in width count, in which only the proportions must be right.

    Args:
        sizes: the outputs and inputs of each layer that is not of a text encoder, by the layer's name in the file.
    """
    groups: dict[str, _Group] = defaultdict(_Group)
    by_comfyui = True
    for name, size in sizes.items():
        layer = named_layer(name)
        group = groups[layer.pattern]
        group.sizes.add(size)
        group.count += 1
        if layer.block is not None:
            group.blocks.add(layer.block)
        by_comfyui = by_comfyui and layer.by_comfyui
    ids = _by_names(groups)
    if by_comfyui and (natively := [id for id in ids if _is_native(groups, id)]):
        ids = natively
    fitting = {id: [size for size in SIZES[id] if _fits(groups, id, size)] for id in ids}
    published = any(fitting.values())
    if not published:
        return Match(tuple(id for id in ids if _is_toy(groups, id)), published=False)
    ids = [id for id in ids if fitting[id]]
    if complete := [id for id in ids if any(_is_complete(groups, id, size) for size in fitting[id])]:
        ids = complete
    return Match(tuple(ids), certain=not all(_IN_ANY_TRANSFORMER.fullmatch(pattern) for pattern in groups))


def _by_names(groups: Mapping[str, _Group]) -> list[str]:
    known: dict[str, int] = defaultdict(int)
    for pattern, group in groups.items():
        for id in meanings().get(pattern, ()):
            known[id] += group.count
    most = max(known.values(), default=0)
    if 2 * most < sum(group.count for group in groups.values()):
        return []
    return [id for id in SIZES if known[id] == most]


def _known(groups: Mapping[str, _Group], id: str) -> Iterable[tuple[Meaning, _Group]]:
    for pattern, group in groups.items():
        if (meaning := meanings().get(pattern, {}).get(id)) is not None:
            yield meaning, group


def _is_native(groups: Mapping[str, _Group], id: str) -> bool:
    # ComfyUI knows Lumina's layers by diffusers' names as well.
    return id in ("z_image", "lumina2") or all(meaning.native for meaning, _ in _known(groups, id))


def _fits(groups: Mapping[str, _Group], id: str, model: ModelSize) -> bool:
    for meaning, group in _known(groups, id):
        if group.blocks and max(group.blocks) >= model.blocks.get(meaning.blocks, math.inf):
            return False
        wanted = [_length(length, model) for length in (meaning.outputs, meaning.inputs)]
        for size in group.sizes:
            if any(is_ and should and is_ != should for is_, should in zip(size, wanted, strict=True)):
                return False
    return True


def _length(length: Length | None, model: ModelSize) -> int | None:
    if isinstance(length, str):
        return model.lengths.get(length)
    return None if length is None else int(length * model.width)


def _is_toy(groups: Mapping[str, _Group], id: str) -> bool:
    """Return whether the layers have the proportions of a small model of the architecture."""
    widths: set[Fraction] = set()
    words: dict[str, set[int]] = defaultdict(set)
    for meaning, group in _known(groups, id):
        for size in group.sizes:
            for is_, should in zip(size, (meaning.outputs, meaning.inputs), strict=True):
                if not is_ or should is None:
                    continue
                if isinstance(should, str):
                    words[should].add(is_)
                else:
                    widths.add(Fraction(is_) / should)
    if any(len(found) > 1 for found in words.values()):
        return False
    return len(widths) <= 1 and all(width.denominator == 1 and width < SMALLEST for width in widths)


def _is_complete(groups: Mapping[str, _Group], id: str, model: ModelSize) -> bool:
    """Return whether the layers are in all blocks of a model: then it is no larger model, of which some are trained."""
    lists: dict[str, set[int]] = defaultdict(set)
    for meaning, group in _known(groups, id):
        if meaning.blocks in model.blocks:
            lists[meaning.blocks] |= group.blocks
    return bool(lists) and all(len(found) == model.blocks[name] for name, found in lists.items())
