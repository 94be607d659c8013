"""Writing of LoRA files that are read back before they get their name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..messages.wording import counted, listed
from .adapter_keys import split_key
from .delta import BIASES, changes_nothing, scale_of, without_middle
from .lora_file import ALPHA, DOWN, MIDDLE, RESHAPE, UP, LayerTensors, write_lora
from .names import Place
from .universal import read_layers

PlaceOf = Callable[[str], Place | None]
"""A function that returns the place of a layer name in a file; None if the name is unknown."""

ROUNDINGS = 8.0
"""The tolerance for a layer, in standard deviations of what rounding its numbers to the file's dtype can change. Each
number is rounded three times at most (to the dtype, times alpha, and alpha itself)."""


def save_layers(
    path: Path,
    layers: Mapping[str, LayerTensors],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    place_of: PlaceOf,
) -> int:
    """Write a LoRA file, read it back, and give it its name only if each layer in it does what was asked for.

    Args:
        path: the file to write.
        layers: the layers that the file is to have, by key in memory.
        tensors: the layers in the form of the file.
        metadata: the file's metadata.
        place_of: as for `read_layers`.

    Returns:
        the size of the file in bytes.

    Raises:
        CrucibleError: as `write_lora`; or a layer is missing in the file, or does something else than in `layers` by
            more than the rounding to the file's dtype; then there is no file.
    """

    def check(written: Path) -> None:
        wrong = differing_layers(written, layers, place_of)
        if wrong:
            raise CrucibleError(
                f"The LoRA was not saved to {path}: {counted(len(wrong), 'layer')} of {len(layers)} would not do in "
                f"the file what was asked for ({listed(wrong)}). Reading it back showed that. The file would be wrong "
                "without a sign of it, so it was deleted. Try another format (--to) or precision (--save_precision "
                "fp32), and please report this with the names of the layers."
            )

    return write_lora(path, tensors, metadata, check)


def differing_layers(path: Path, layers: Mapping[str, LayerTensors], place_of: PlaceOf) -> list[str]:
    """Return the keys of the layers that a file lacks, has in addition, or has with another effect.

    The file is read layer by layer, so that a large one needs no memory.
    """
    with safe_open(path, "pt") as file:
        of_layers: dict[str, list[str]] = {}
        lost = []
        for key in file.keys():  # noqa: SIM118 - not a dictionary
            parts = split_key(key)
            if parts is not None:
                place = place_of(parts[0])
                of_layers.setdefault(parts[0] if place is None else place.key, []).append(key)
        found = {}
        for keys in of_layers.values():
            try:
                read = read_layers({key: file.get_tensor(key) for key in keys}, place_of)
            except CrucibleError:
                lost += keys
                continue
            for key, layer in read.layers.items():
                found[key] = key in layers and same_effect(layers[key], layer)
    wrong = {key for key, same in found.items() if not same}
    wrong |= {key for key in layers.keys() - found.keys() if not changes_nothing(layers[key])}
    return sorted(wrong) or lost


def same_effect(asked: LayerTensors, read: LayerTensors) -> bool:
    """Return whether a layer that was read from a file does what was asked for, to the rounding of the file's dtype.

    Factors that were copied are compared as they are. Products are compared by what they do to a random vector, which
    costs as little as reading them: if ΔW differs anywhere by more than rounding, so does its product.
    """
    asked, read = _what_counts(asked), _what_counts(read)
    is_lora = DOWN in asked and DOWN in read
    factors = {DOWN, UP, MIDDLE, ALPHA} if is_lora else {ALPHA}
    if asked.keys() - factors != read.keys() - factors:
        return False
    for suffix in asked.keys() - factors:
        if not _close(asked[suffix], read[suffix]):
            return False
    if not is_lora:
        return bool(abs(scale_of(asked) - scale_of(read)) <= 4 * _unit(read) * abs(scale_of(asked)))
    return _equal_factors(asked, read) or _same_product(asked, read)


def _what_counts(layer: LayerTensors) -> LayerTensors:
    """Return a layer without biases of zero, and without the size of its own matrix, which diffusers does not need."""
    own = [len(layer[UP]), layer[DOWN].shape[1]] if DOWN in layer else []
    return {
        suffix: tensor
        for suffix, tensor in layer.items()
        if (suffix not in BIASES or tensor.any()) and (suffix != RESHAPE or tensor.tolist() != own)
    }


def _close(asked: Tensor, read: Tensor) -> bool:
    """Return whether two tensors differ by one rounding at most; NaN equals NaN, and a vector any shape of its size."""
    if asked.numel() != read.numel() or (asked.ndim > 1 and read.ndim > 1 and asked.shape != read.shape):
        return False
    if not read.is_floating_point():
        return torch.equal(asked.flatten(), read.flatten())
    finfo = torch.finfo(read.dtype)
    return torch.allclose(
        read.flatten().float(),
        asked.flatten().float(),
        rtol=finfo.eps,
        atol=finfo.tiny * finfo.eps,
        equal_nan=True,
    )


def _equal_factors(asked: LayerTensors, read: LayerTensors) -> bool:
    return (
        asked.keys() == read.keys()
        and all(
            asked[suffix].shape == read[suffix].shape
            and torch.equal(asked[suffix].to(read[suffix].dtype), read[suffix])
            for suffix in (DOWN, UP, MIDDLE)
            if suffix in asked
        )
        and abs(scale_of(asked) - scale_of(read)) <= _unit(read) * abs(scale_of(asked))
    )


def _same_product(asked: LayerTensors, read: LayerTensors) -> bool:
    scale, up, down = _factors(asked)
    other_scale, other_up, other_down = _factors(read)
    if down.shape[1] != other_down.shape[1] or len(up) != len(other_up):
        return False
    x = torch.randn(down.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inner = down @ x
    product, other = scale * (up @ inner), other_scale * (other_up @ (other_down @ x))
    squares = up.square()
    # The variances of the product if each number is rounded, relatively and, where it is tiny, absolutely.
    relative = scale**2 * (squares @ (inner.square() + down.square() @ x.square())) + product.square()
    absolute = scale**2 * (squares.sum(1) * x.square().sum() + inner.square().sum())
    deviation = (_unit(read) ** 2 * relative + _least(read) ** 2 * absolute).sqrt()
    return bool(((product - other).abs() <= ROUNDINGS * deviation).all())


def _factors(layer: LayerTensors) -> tuple[float, Tensor, Tensor]:
    whole = without_middle(layer)
    return scale_of(layer), whole[UP].double().flatten(1), whole[DOWN].double().flatten(1)


def _unit(layer: LayerTensors) -> float:
    """Return the largest relative error of rounding to the coarsest dtype of a layer."""
    return max(torch.finfo(dtype).eps for dtype in _dtypes(layer)) / 2


def _least(layer: LayerTensors) -> float:
    """Return the distance of the smallest numbers in the coarsest dtype of a layer."""
    return max(torch.finfo(dtype).tiny * torch.finfo(dtype).eps for dtype in _dtypes(layer))


def _dtypes(layer: LayerTensors) -> Iterator[torch.dtype]:
    yield torch.float32
    yield from (tensor.dtype for tensor in layer.values() if tensor.is_floating_point())
