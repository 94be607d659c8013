"""Read the tables of layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

from . import flux, images, videos

_TABLES = {
    "sd3": images.SD3,
    "flux1": flux.FLUX1,
    "flux2": flux.FLUX2,
    "chroma": flux.CHROMA,
    "lumina2": images.LUMINA2,
    "z_image": images.Z_IMAGE,
    "qwen_image": images.QWEN_IMAGE,
    "auraflow": images.AURAFLOW,
    "pixart_alpha": images.PIXART_ALPHA,
    "pixart_sigma": images.PIXART_SIGMA,
    "hunyuan_dit": images.HUNYUAN_DIT,
    "hidream": images.HIDREAM,
    "cosmos_predict2": videos.COSMOS_PREDICT2,
    "anima": videos.ANIMA,
    "wan": videos.WAN,
    "hunyuan_video": videos.HUNYUAN_VIDEO,
    "ltxv": videos.LTX_VIDEO,
}

Length = Fraction | str
"""A number of outputs or inputs: in units of the model's width, or the word for it in `model_sizes`."""

Swap = Literal["never", "always", "in the last block"]
"""When diffusers stores the halves of a layer's outputs in the opposite order."""

_LINE = re.compile(
    r"(?P<name>\S+)(?: (?P<out>[^\s:]+):(?P<inputs>[^\s:]+))?(?: = (?P<parts>[^|]+?))?(?: \| (?P<other>\S+))?"
)
_PART = re.compile(r"(?P<name>[^:~]+)(?::(?P<share>\d+))?(?P<swap>~last|~|)")
_SWAPS: dict[str, Swap] = {"": "never", "~": "always", "~last": "in the last block"}


@dataclass(frozen=True)
class RowPart:
    """A part of a layer in diffusers.

    Attributes:
        name: diffusers' name, with "#" for block numbers and without the pipeline's component.
        share: the number of outputs, relative to those of the other parts.
        swap: when its halves are in the opposite order.
    """

    name: str
    share: int
    swap: Swap


@dataclass(frozen=True)
class Row:
    """A layer, or the same layer of all blocks.

    Attributes:
        native: ComfyUI's name, with "#" for block numbers.
        parts: the layer's parts in diffusers, in the order of the layer's outputs.
        original: the original code's name if it is neither ComfyUI's nor diffusers'; otherwise ComfyUI's.
        outputs, inputs: the numbers of outputs and inputs; None if the table does not give them.
    """

    native: str
    parts: tuple[RowPart, ...]
    original: str
    outputs: Length | None
    inputs: Length | None


@cache
def rows(architecture: str) -> tuple[Row, ...]:
    """Return the table of the architecture with this id; empty if it has none."""
    return tuple(_rows(_TABLES.get(architecture, "")))


def all_rows() -> Iterator[Row]:
    """Yield the rows of all tables."""
    for architecture in _TABLES:
        yield from rows(architecture)


def _rows(table: str) -> Iterator[Row]:
    blocks = of_diffusers = ""
    for line in table.splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"This line of a table of layers cannot be read: {line!r}")
        inside = line.startswith(" ")
        if not inside and "#" in match["name"] and match["name"].endswith(("#", "#.block")):
            blocks, of_diffusers = match["name"] + ".", (match["parts"] or match["name"]) + "."
            continue
        start, other_start = (blocks, of_diffusers) if inside else ("", "")
        yield Row(
            start + match["name"],
            tuple(_part(other_start, text) for text in (match["parts"] or match["name"]).split()),
            start + (match["other"] or match["name"]),
            _length(match["out"]),
            _length(match["inputs"]),
        )


def _part(start: str, text: str) -> RowPart:
    match = _PART.fullmatch(text)
    assert match is not None, text
    return RowPart(start + match["name"], int(match["share"] or 1), _SWAPS[match["swap"]])


def _length(text: str | None) -> Length | None:
    if text is None:
        return None
    return Fraction(text) if text[0].isdigit() else text
