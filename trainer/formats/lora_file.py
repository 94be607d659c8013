"""LoRA files on disk: kohya's form in safetensors, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CrucibleError

DOWN, UP, ALPHA, DORA_SCALE = ".lora_down.weight", ".lora_up.weight", ".alpha", ".dora_scale"


LYCORIS = (".hada_", ".lokr_")
"""What is in the suffixes of LoHa and LoKr."""

LayerTensors = dict[str, Tensor]
"""One layer's adapter by suffix.

A LoRA, whose ΔW is alpha / rank · up @ down, has `DOWN` (rank, in) or (rank, in, kernel height, kernel width), `UP`
(out, rank) or (out, rank, 1, 1), and `ALPHA`, a scalar; a DoRA also `DORA_SCALE` (out, 1, …); LoHa and LoKr have the
suffixes of LyCORIS (.hada_w1_a, .lokr_w1, …).
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


def size_text(size: int) -> str:
    """A file size in bytes as people read it (1 MB = 1,000,000 bytes)."""
    if size < 1000:
        return f"{size} bytes"
    for unit, factor in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        value = size / factor
        if value < 999.95 or unit == "GB":
            break
    return f"{value:.1f} {unit}"


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
    header, data = _serialize(state_dict, metadata)
    size = len(header) + len(data)
    with _explained(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another ending, so that no list of LoRAs shows it; not tempfile, whose files only their owner reads.
        temporary = path.with_name(f".crucible-{secrets.token_hex(8)}.tmp")
        try:
            with open(temporary, "xb") as file:
                file.write(header)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return size


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


def _serialize(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """Header and tensor bytes.

    The library writes metadata in random order (safetensors issue 584), so the header is put together here:
    JSON with sorted keys, padded to 8 bytes, after its length as a little-endian uint64.
    """
    content = memoryview(safetensors.torch.save(dict(sorted(state_dict.items()))))
    length = int.from_bytes(content[:8], "little")
    entries, data = json.loads(bytes(content[8 : 8 + length])), content[8 + length :]
    digest = hashlib.sha256(data).hexdigest()
    extended = {**metadata, "modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    entries = {"__metadata__": dict(sorted(extended.items())), **dict(sorted(entries.items()))}
    # "replace": half a surrogate pair, as in a folder name that is no UTF-8, would make the file unreadable.
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, data


@contextmanager
def _explained(path: Path, size: int) -> Iterator[None]:
    """Turn the system's errors while writing `size` bytes to `path` into ones that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cause, remedy = f"the disk is full ({_free_text(path)})", "Free some space on that disk"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            cause = "writing there is not permitted, or another program has the file open"
            remedy = "Close programs that use the file, or allow writing to the folder"
        else:
            cause, remedy = error.strerror or str(error), "Check the disk and the folder"
        raise CrucibleError(
            f"The LoRA could not be saved to {path} ({size_text(size)}): {cause}. No half-written file was "
            f"left, and what was there before is unchanged. {remedy}, or choose another folder; save again."
        ) from error


def _free_text(path: Path) -> str:
    try:
        return f"{size_text(shutil.disk_usage(path.parent).free)} free"
    except OSError:
        return "free space unknown"


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system can (Windows cannot open folders)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
