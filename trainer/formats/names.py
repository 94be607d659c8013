"""The names that programs use for the layers of an architecture, available without loading a model.

ComfyUI and the original trainers use the original code's name ("double_blocks.0.img_attn.qkv"). diffusers uses its own,
or several where it splits a layer into parts ("transformer_blocks.0.attn.to_q" and so on). The tables of
`layer_tables` and the rules of `unet_names` say which; all names are found by `spelling.flat`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, product

import torch
from torch import Tensor

from .architectures import Architecture, Form
from .language_names import language_path
from .layer_names import is_of_text_encoder, kohya_key, language_key, text_encoder_key
from .layer_tables.rows import Row, RowPart, rows
from .spelling import flat, spellings
from .unet_names import unet_layers

BLOCKS = 128
"""The number of blocks of one kind that tables cover, more than any model has."""

EXPERTS = 4
"""The number of experts in one block that tables cover."""


@dataclass(frozen=True)
class Place:
    """The place that a name refers to: a layer, or a range of its outputs.

    Attributes:
        key: the layer's key as in memory (kohya's format).
        first, count, of: the range of outputs, which starts at first/of and covers count/of of them.
        reorder: a function that puts rows from the order of the program with this name into the layer's order; None
            if the order is the same.
    """

    key: str
    first: int = 0
    count: int = 1
    of: int = 1
    reorder: Callable[[Tensor], Tensor] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the place is the whole layer."""
        return self.count == self.of

    def rows(self, total: int) -> slice:
        """Return the range as a slice of the layer's `total` outputs."""
        return slice(self.first * total // self.of, (self.first + self.count) * total // self.of)


@dataclass(frozen=True)
class LayerNames:
    """The names of one layer.

    Attributes:
        key: the layer's key in memory.
        native: the name that ComfyUI's loader knows: "diffusion_model.double_blocks.0.img_attn.qkv".
        diffusers: the name and place of each part in diffusers: "transformer.transformer_blocks.0.attn.to_q".
        original: the original code's name where it is neither of these, with ComfyUI's prefix:
            "diffusion_model.double_blocks.0.img_attn_qkv"; otherwise the same as `native`.
        kernel: the height and width of a UNet convolution's kernel; 0 for other layers.
    """

    key: str
    native: str
    diffusers: tuple[tuple[str, Place], ...]
    original: str
    kernel: int = 0


@cache
def layer_names(architecture: Architecture) -> dict[str, LayerNames]:
    """Return the names of an architecture's layers, by key; empty if it has no table.

    They include more layers than any model has, to cover models of every size.
    """
    found = [*_denoiser(architecture), *_text_encoders(architecture)]
    return {names.key: names for names in found}


@cache
def places(architecture: Architecture) -> Mapping[str, Place]:
    """Return the place of every name in an architecture's table, by the name as `flat` spells it."""
    found: dict[str, Place] = {}
    for names in layer_names(architecture).values():
        whole = Place(names.key)
        found.update((flat(name), place) for name, place in names.diffusers)
        found.update({flat(names.native): whole, flat(names.original): whole})
        if names.native.endswith(".linear1") and len(names.diffusers) == 4:
            found[flat(f"{names.native}_qkv")] = Place(names.key, 0, 3, names.diffusers[0][1].of)  # XLabs' part of it
    # Some programs leave out the number of diffusers' output layers, which stand in a list of their own.
    for name, place in list(found.items()):
        if name.endswith("_to_out_0"):
            found.setdefault(name.removesuffix("_0"), place)
    return found


def place_of(name: str, architecture: Architecture) -> Place | None:
    """Return the place that a layer name in a file refers to; None if the name is unknown."""
    if architecture.id == "language":
        path = language_path(name)
        return None if path is None else Place(language_key(path))
    known = places(architecture)
    return next((known[spelling] for spelling in spellings(name) if spelling in known), None) if known else None


def names_in_form(names: LayerNames, architecture: Architecture, form: Form) -> tuple[tuple[str, Place], ...]:
    """Return the name and place of each part of a layer in a file of the given format.

    The "auto" format has the names of most programs for the architecture. None of the names is kohya's, not even if
    that is the architecture's usual format.
    """
    whole, in_text_encoder = Place(names.key), is_of_text_encoder(names.key)
    if form == "comfyui" or (form == "auto" and architecture.naming == "native" and not in_text_encoder):
        return ((names.native, whole),)
    if form == "auto" and architecture.naming == "original" and not in_text_encoder:
        return ((names.original, whole),)
    if form == "peft":
        prefix = "base_model.model."
    elif form == "auto" and not in_text_encoder:
        prefix = architecture.prefix
    else:
        return names.diffusers
    return tuple((prefix + name.partition(".")[2], place) for name, place in names.diffusers)


def swap_halves(rows: Tensor) -> Tensor:
    """Swap the halves of the rows: diffusers and the original code store scale and shift in opposite order."""
    return torch.cat(rows.chunk(2)[::-1])


@dataclass(frozen=True)
class SwapInLastBlock:
    """A function that swaps the halves of the rows of an SD3 block's text modulation if the block is the last one.

    In the last block, the modulation has 2 instead of 6 outputs for each of the model's width, which is 64 times the
    number of blocks. So the number of rows shows whether it is the last.

    Attributes:
        block: the number of the block, from 0.
    """

    block: int

    def __call__(self, rows: Tensor) -> Tensor:
        return swap_halves(rows) if len(rows) == 2 * 64 * (self.block + 1) else rows


def _denoiser(architecture: Architecture) -> Iterator[LayerNames]:
    for layer in unet_layers(architecture.id):
        key = kohya_key(layer.diffusers if architecture.naming == "diffusers" else layer.native)
        native = f"diffusion_model.{layer.native}"
        yield LayerNames(key, native, ((f"unet.{layer.diffusers}", Place(key)),), native, layer.kernel)
    for row in rows(architecture.id):
        depth = row.native.count("#")
        for numbers in product(range(BLOCKS if depth else 1), range(EXPERTS if depth > 1 else 1)):
            yield _of_row(row, numbers)


def _of_row(row: Row, numbers: tuple[int, ...]) -> LayerNames:
    def numbered(name: str) -> str:
        for number in numbers:
            name = name.replace("#", str(number), 1)
        return name

    key = kohya_key(numbered(row.native))
    starts = (0, *accumulate(part.share for part in row.parts))
    parts = (
        (
            numbered(_in_pipeline(part.name)),
            Place(key, start, part.share, starts[-1], _reordering(part, numbers[0])),
        )
        for part, start in zip(row.parts, starts, strict=False)
    )
    native, original = (f"diffusion_model.{numbered(name)}" for name in (row.native, row.original))
    return LayerNames(key, native, tuple(parts), original)


def _in_pipeline(name: str) -> str:
    """Return a layer's name in diffusers with the component of the pipeline that it belongs to."""
    return name if name.startswith("text_conditioner.") else f"transformer.{name}"


def _reordering(part: RowPart, block: int) -> Callable[[Tensor], Tensor] | None:
    if part.swap == "in the last block":
        return SwapInLastBlock(block)
    return swap_halves if part.swap == "always" else None


_CLIPS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(("sd15", "demo"), (("lora_te", "clip_l"),)),
    **dict.fromkeys(("sd2", "sd2_v"), (("lora_te", "clip_h"),)),
    **dict.fromkeys(("sdxl", "sd3"), (("lora_te1", "clip_l"), ("lora_te2", "clip_g"))),
    "flux1": (("lora_te1", "clip_l"),),
}
"""kohya's and ComfyUI's names of each architecture's CLIP models. T5 and language models keep the names of the file."""

_CLIP_LAYERS = 32
_IN_CLIP = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def clip_count(architecture: Architecture) -> int:
    """Return the number of CLIP models whose layers the architecture's table has."""
    return len(_CLIPS.get(architecture.id, ()))


def _text_encoders(architecture: Architecture) -> Iterator[LayerNames]:
    for number, (kohya, comfyui) in enumerate(_CLIPS.get(architecture.id, ())):
        diffusers = "text_encoder" if number == 0 else f"text_encoder_{number + 1}"
        for layer in range(_CLIP_LAYERS):
            for inner in _IN_CLIP:
                path = f"text_model.encoder.layers.{layer}.{inner}"
                key = text_encoder_key(kohya, path)
                native = f"text_encoders.{comfyui}.transformer.{path}"
                yield LayerNames(key, native, ((f"{diffusers}.{path}", Place(key)),), native)
        if comfyui == "clip_g":
            key, native = f"{kohya}_text_projection", f"text_encoders.{comfyui}.transformer.text_projection"
            yield LayerNames(key, native, ((f"{diffusers}.text_projection", Place(key)),), native)
