"""Hashes that identify sets of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def weights_hash(parameters: Iterable[tuple[str, Tensor]], extra: Iterable[str] = ()) -> str:
    """Return a hash of names, shapes, dtypes and 64 evenly spaced bytes of each tensor, which is cheap even for 20 GB
    of weights.

    Args:
        parameters: the tensors by name, in any order.
        extra: further texts that the hash depends on.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(parameters, key=lambda item: item[0]):
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        picks = [i * (flat.numel() - 1) // 63 for i in range(64)] if flat.numel() else []
        digest.update(flat[picks].cpu().numpy().tobytes())
    for text in extra:
        digest.update(text.encode())
    return digest.hexdigest()
