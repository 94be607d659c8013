"""Read and write LoRA files: safetensors in kohya's format, written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..files.atomic import write_whole
from .foreign import finite_alphas, require_a_lora
from .header import not_whole, read_header, unreadable
from .peft_scale import scale_of_file, with_alphas
from .tensor_file import data_parts, file_parts, hash_of

DOWN, UP, ALPHA, DORA_SCALE = ".lora_down.weight", ".lora_up.weight", ".alpha", ".dora_scale"
MIDDLE = ".lora_mid.weight"
MAGNITUDE, BIAS, SET, RESHAPE = ".lora_magnitude_vector", ".diff_b", ".set_weight", ".reshape_weight"

MAPPED = os.name != "nt"
"""Whether LoRA files are memory-mapped, so that nothing is copied. Windows would not let anyone replace or delete a
mapped file, so there they are read."""

LYCORIS = (".hada_", ".lokr_")
"""Strings that only the suffixes of LoHa and LoKr contain."""

LayerTensors = dict[str, Tensor]
"""The adapter of one layer: its tensors by suffix.

A LoRA, whose ΔW is alpha / rank · up @ down, has `DOWN` (rank, in) or (rank, in, kernel height, kernel width), `UP`
(out, rank) or (out, rank, 1, 1), and `ALPHA`, a scalar. A DoRA also has `DORA_SCALE` (out, 1, …), which is divided by
the norms of the base weight, or, in PEFT's files, `MAGNITUDE` (out,), which is divided by the norms of the changed
weight; it is NaN in rows that are a plain LoRA. LoHa and LoKr have LyCORIS's suffixes (.hada_w1_a, .lokr_w1, …).
Convolutions from other trainers can have `MIDDLE` (rank, rank, kernel height, kernel width) with a `DOWN` of (rank, in,
1, 1). Full differences are .diff for a weight and `BIAS` for a bias. `SET` is a whole weight that replaces the layer's,
and `RESHAPE` the shape that the layer's weight is enlarged to with zeros before the LoRA is added.
"""


def lora_layer(down: Tensor, up: Tensor, alpha: float) -> LayerTensors:
    """Return the tensors of a LoRA on one layer."""
    return {DOWN: down, UP: up, ALPHA: torch.tensor(float(alpha))}


def to_state_dict(layers: Mapping[str, LayerTensors], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return copies of the tensors on the CPU, in `dtype`, by full key; further training does not change them.

    Args:
        layers: the adapters by file key without suffix ("lora_unet_…_to_q").

    Raises:
        CrucibleError: a weight is NaN or infinite, or too large for `dtype`.
    """
    state_dict: dict[str, Tensor] = {}
    for key, tensors in sorted(layers.items()):
        for suffix, tensor in tensors.items():
            kept = dtype if tensor.is_floating_point() else tensor.dtype
            copied = tensor.detach().to("cpu", kept, copy=True, memory_format=torch.contiguous_format)
            checked = copied.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf) if suffix == MAGNITUDE else copied
            if not torch.isfinite(checked).all():
                too_large = bool(torch.isfinite(tensor).all())
                problem = f"too large for {dtype}" if too_large else "NaN or infinite"
                raise CrucibleError(
                    f"{key}{suffix} has values that are {problem}. With such a LoRA the model would only make "
                    "nonsense, so it was not saved. "
                    + ("Set save_precision to fp32." if too_large else "Train with a lower learning_rate.")
                )
            state_dict[key + suffix] = copied
    return state_dict


def dtype_of(*loras: Mapping[str, Tensor]) -> torch.dtype:
    """Return the dtype for a file made from these LoRAs: the one that all their matrices share, or else float32."""
    dtypes = {
        tensor.dtype if tensor.element_size() > 1 else torch.float16
        for lora in loras
        for tensor in lora.values()
        if tensor.is_floating_point() and tensor.ndim >= 2
    }
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def write_lora(
    path: Path,
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    check: Callable[[Path], None] | None = None,
) -> int:
    """Write a safetensors file, creating its folder if needed, and return its size in bytes.

    The file appears at `path` complete or not at all; an existing file stays intact until then. The same tensors
    and metadata give the same bytes. The hash of the tensor bytes is added to the metadata as
    modelspec.hash_sha256, and as sshs_model_hash, by which A1111 and Civitai recognize a LoRA.

    Args:
        path: the file to write.
        state_dict: the tensors by key.
        metadata: the file's metadata.
        check: a function that reads the finished file, still under a temporary name, and raises an error if it is not
            right; then nothing appears at `path`.

    Raises:
        CrucibleError: the disk is full, the folder is not writable, or the system reports another error.
        ValueError: there are no tensors.
    """
    if not state_dict:
        raise ValueError("A LoRA file needs at least one layer.")
    data = data_parts(state_dict)
    digest = hash_of(data)
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    return write_whole(path, *file_parts(state_dict, data, {**metadata, **hashes}), what="The LoRA", check=check)


def _mapped(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA: its tensors by key, on the CPU, and its metadata (empty if it has none).

    The header is checked first, so the contents of other kinds of files are never read. The tensors are on the disk
    until they are used, except on Windows: see `MAPPED`. A strength that PEFT or diffusers keep in a config
    becomes alphas among the tensors, so that it counts wherever the LoRA is used.

    Raises:
        CrucibleError: as `read_header`; or the file holds no LoRA, or one of a method that no program reads from a
            file, or a weight that counts is not finite.
    """
    header = read_header(path)
    require_a_lora(path, header)
    try:
        tensors = _mapped(path) if MAPPED else safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise not_whole(path, header.size, str(error)) from error
    tensors |= finite_alphas(path, tensors)
    if (scale := scale_of_file(header)) is not None:
        tensors = with_alphas(tensors, scale.scales)
    return tensors, header.metadata
