"""Turning captions into the conditioning arguments of a ComfyUI model, and batching these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...files.tensor_tree import map_tensors

Conditioning = dict[str, Any]
"""ComfyUI's cond objects of one sample, by the name of the model argument that each is passed as."""


def encode_caption(clip: Any, caption: str) -> list[Any]:
    """Return ComfyUI's conditioning list for a caption. Brackets are plain text here, not prompt weights."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(caption, disable_weights=True), show_pbar=False)


def encode_prompt(clip: Any, prompt: str) -> list[Any]:
    """Return ComfyUI's conditioning list for a prompt, as the CLIP Text Encode node does."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt), show_pbar=False)


def model_conditioning(model: Any, encoded: list[Any], latent: Tensor) -> Conditioning:
    """Return the model's own arguments for an encoded caption and a latent (channels, height, width).

    These are the context, the pooled output with size and crop for SDXL, the guidance for Flux, and so on. All tensors
    can be used with autograd: those that require gradients stay attached, the others are copied to the CPU.
    """
    conds = comfy.sampler_helpers.convert_cond(encoded)
    noise = latent.unsqueeze(0)
    (cond,) = comfy.samplers.encode_model_conds(model.extra_conds, conds, noise, noise.device, "positive")
    return {
        name: value._copy_with(map_tensors(_ordinary, value.process_cond(batch_size=1, area=None).cond))
        for name, value in cond["model_conds"].items()
    }


def _ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd can save for backward, which it refuses for tensors from inference mode."""
    return tensor if tensor.requires_grad else tensor.detach().to("cpu", copy=True)


def shapes(conditioning: Conditioning) -> tuple[Any, ...]:
    """Return the shapes that samples must have in common to be in one batch, because nothing is padded or repeated."""

    def shape(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape)
        if isinstance(value, list | tuple):
            return tuple(shape(item) for item in value)
        return repr(value)

    return tuple((name, type(value).__name__, shape(value.cond)) for name, value in sorted(conditioning.items()))


def batched(rows: Sequence[Conditioning], device: torch.device) -> dict[str, Any]:
    """Return the model's arguments for a batch. Row i of each tensor belongs to sample i."""
    first, *others = rows
    joined = {name: value.concat([row[name] for row in others]) for name, value in first.items()}
    return map_tensors(lambda tensor: tensor.to(device), joined)
