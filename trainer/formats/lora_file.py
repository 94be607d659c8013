"""LoRA files on disk: kohya's form in safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CrucibleError
from ..whole_files import size_text, write_whole
from .tensor_file import data_parts, file_parts

DOWN, UP, ALPHA, DORA_SCALE = ".lora_down.weight", ".lora_up.weight", ".alpha", ".dora_scale"
MIDDLE = ".lora_mid.weight"

LYCORIS = (".hada_", ".lokr_")
"""What is in the suffixes of LoHa and LoKr."""

LayerTensors = dict[str, Tensor]
"""One layer's adapter by suffix.

A LoRA, whose ΔW is alpha / rank · up @ down, has `DOWN` (rank, in) or (rank, in, kernel height, kernel width), `UP`
(out, rank) or (out, rank, 1, 1), and `ALPHA`, a scalar; a DoRA also `DORA_SCALE` (out, 1, …); LoHa and LoKr have the
suffixes of LyCORIS (.hada_w1_a, .lokr_w1, …). Convolutions of other trainers may have `MIDDLE` (rank, rank, kernel
height, kernel width) and a `DOWN` of (rank, in, 1, 1); and there are whole differences: .diff of a weight, .diff_b of a
bias.
"""


def lora_layer(down: Tensor, up: Tensor, alpha: float) -> LayerTensors:
    """A LoRA on one layer."""
    return {DOWN: down, UP: up, ALPHA: torch.tensor(float(alpha))}


def to_state_dict(layers: Mapping[str, LayerTensors], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a file, by full key, in `dtype`: copies on the CPU, which further training leaves alone.

    Args:
        layers: by file key without suffix ("lora_unet_…_to_q").

    Raises:
        CrucibleError: a weight is not finite, or does not fit into `dtype`.
    """
    state_dict: dict[str, Tensor] = {}
    for key, tensors in sorted(layers.items()):
        for suffix, tensor in tensors.items():
            copied = tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
            if not torch.isfinite(copied).all():
                too_large = bool(torch.isfinite(tensor).all())
                problem = f"too large for {dtype}" if too_large else "not finite"
                raise CrucibleError(
                    f"{key}{suffix} has values that are {problem}. Such a LoRA gives black or noisy "
                    "pictures, so it was not saved. "
                    + ("Set save_precision to fp32." if too_large else "Train with a lower learning_rate.")
                )
            state_dict[key + suffix] = copied
    return state_dict


def write_lora(path: Path, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Write a safetensors file, creating its folder; returns its size in bytes.

    The file appears under `path` complete or not at all; one that is already there stays whole until then.
    Same tensors and metadata give the same bytes. The hash of the tensor bytes is added to the metadata, as
    modelspec.hash_sha256 asks and as sshs_model_hash, by which A1111 and Civitai recognise a LoRA.

    Raises:
        CrucibleError: the disk is full, the folder may not be written to, or the system fails otherwise.
    """
    if not state_dict:
        raise ValueError("A LoRA file needs at least one layer.")
    data, digest = data_parts(state_dict), hashlib.sha256()
    for part in data.values():
        digest.update(part)
    hashes = {"modelspec.hash_sha256": f"0x{digest.hexdigest()}", "sshs_model_hash": digest.hexdigest()}
    return write_whole(path, *file_parts(state_dict, data, {**metadata, **hashes}), what="The LoRA")


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by key, on the CPU, and its metadata (empty if it has none).

    The file is read, not mapped into memory: a mapped one could not be replaced on Windows.

    Raises:
        CrucibleError: no such file, not a safetensors file, cut off or damaged.
    """
    if path.suffix.lower() != ".safetensors":
        raise CrucibleError(
            f"{path} is not a .safetensors file. Other formats (.pt, .bin, .ckpt) can run code when they are "
            "opened, so they are not read. Choose the LoRA's .safetensors version."
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CrucibleError(
            f"There is no file {path}, so no LoRA could be read. Check the name and the folder; names are "
            "case-sensitive on some systems."
        ) from None
    except OSError as error:
        raise CrucibleError(
            f"{path} could not be read: {error.strerror or error}. Without it there is no LoRA to use. Check "
            "that it is a file and that you may read it."
        ) from error
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CrucibleError(
            f"{path} ({size_text(len(content))}) is not a whole safetensors file: {error}. It was probably "
            "cut off while downloading or copying, or is another kind of file with this ending. Download or "
            "copy it again."
        ) from error
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__")
    return tensors, dict(metadata or {})
