"""LoRA files on disk: kohya's form in safetensors, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CrucibleError
from ..files.atomic import write_whole
from ..messages.wording import size_text
from .adapter_keys import is_adapter_key
from .header import not_whole, read_header, unreadable
from .tensor_file import data_parts, file_parts, hash_of

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


def dtype_of(*loras: Mapping[str, Tensor]) -> torch.dtype:
    """One for a file that holds what all of these hold: that of their matrices, or float32 where they differ."""
    dtypes = {
        tensor.dtype if tensor.element_size() > 1 else torch.float16
        for lora in loras
        for tensor in lora.values()
        if tensor.is_floating_point() and tensor.ndim >= 2
    }
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


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
    data = data_parts(state_dict)
    digest = hash_of(data)
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    return write_whole(path, *file_parts(state_dict, data, {**metadata, **hashes}), what="The LoRA")


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a LoRA by key, on the CPU, and its metadata (empty if it has none).

    The header is checked first, so that no other file's body is read. The file is read, not mapped into memory: a
    mapped one could not be replaced on Windows.

    Raises:
        CrucibleError: as `read_header`; or the file holds no LoRA, or a weight is not finite.
    """
    header = read_header(path)
    if not any(is_adapter_key(key) for key in header.entries):
        some = ", ".join(list(header.entries)[:3])
        raise CrucibleError(
            f"{path} ({size_text(header.size)}) holds no LoRA: none of its {len(header.entries)} keys is one of a "
            f"LoRA's{f' ({some}, …)' if some else ''}. It is probably a checkpoint, an embedding or a VAE, which have "
            "loaders of their own. Choose a LoRA, or move the file out of the LoRA folder."
        )
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise not_whole(path, header.size, str(error)) from error
    for key, tensor in tensors.items():
        # Weights of one byte have no test of their own.
        wide = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
        if not torch.isfinite(wide).all():
            bad = int((~torch.isfinite(wide)).sum())
            raise CrucibleError(
                f"{path} is broken: {bad} of the {tensor.numel()} values of {key} are not finite numbers. With it on "
                "the model every picture would be black or noise. The training that made it failed; use an earlier "
                "save of it, or train again with a lower learning rate."
            )
    return tensors, header.metadata
