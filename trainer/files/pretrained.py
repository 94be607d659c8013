"""How transformers opens a folder: without the network, pickles and code from the folder."""

from __future__ import annotations

from typing import Any

import torch


def pretrained(dtype: torch.dtype | None = None, *, auto: bool = False) -> dict[str, Any]:
    """Return arguments for transformers' `from_pretrained` that read local files only, and no pickles or code.

    Args:
        dtype: the dtype of the weights; None for objects without weights, such as processors.
        auto: whether one of the Auto classes is called, which would otherwise ask at the console whether to run a
            folder's code.
    """
    import transformers

    arguments: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
        arguments |= {"use_safetensors": True, "dtype" if version >= (4, 56) else "torch_dtype": dtype}
    if auto:
        arguments["trust_remote_code"] = False
    return arguments
