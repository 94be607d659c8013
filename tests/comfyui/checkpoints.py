"""Writing small files that ComfyUI recognises as models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_SD3 = {
    "x_embedder.proj.weight": (64, 16, 2, 2),
    "x_embedder.proj.bias": (64,),
    "joint_blocks.0.context_block.attn.qkv.weight": (192, 64),
    "joint_blocks.0.x_block.attn.qkv.weight": (192, 64),
    "final_layer.linear.weight": (64, 64),
    "final_layer.linear.bias": (64,),
}


def write_small_sd3(path: Path, prefix: str = "") -> None:
    """Write just the weights by which ComfyUI recognises a small SD3, without text encoder and VAE.

    Args:
        path: the file to write.
        prefix: the prefix of its keys; "model.diffusion_model." for a checkpoint.
    """
    save_file({prefix + name: np.zeros(shape, np.float16) for name, shape in _SD3.items()}, path)
