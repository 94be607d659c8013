"""What a ComfyUI model is told about a caption, as a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...files.tensor_tree import map_tensors

Conditioning = dict[str, Any]
"""ComfyUI's own cond objects by the name of the model's argument, for one sample."""


def encode_caption(clip: Any, caption: str) -> list[Any]:
    """ComfyUI's conditioning list for a caption. Brackets are text here: captions are no prompts with weights."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(caption, disable_weights=True), show_pbar=False)


def encode_prompt(clip: Any, prompt: str) -> list[Any]:
    """ComfyUI's conditioning list for a prompt, as its CLIP Text Encode node makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt), show_pbar=False)


def model_conditioning(model: Any, encoded: list[Any], latent: Tensor) -> Conditioning:
    """The arguments that the model itself makes of an encoded caption for a latent (channels, height, width):
    context, pooled output with size and crop for SDXL, guidance for Flux, and so on. Fit for autograd: what has
    gradients keeps them, the rest is on the CPU.
    """
    conds = comfy.sampler_helpers.convert_cond(encoded)
    noise = latent.unsqueeze(0)
    (cond,) = comfy.samplers.encode_model_conds(model.extra_conds, conds, noise, noise.device, "positive")
    return {
        name: value._copy_with(map_tensors(_ordinary, value.process_cond(batch_size=1, area=None).cond))
        for name, value in cond["model_conds"].items()
    }


def _ordinary(tensor: Tensor) -> Tensor:
    """A copy without the marks of inference mode: autograd refuses to save tensors that bear them."""
    return tensor if tensor.requires_grad else tensor.detach().to("cpu", copy=True)


def shapes(conditioning: Conditioning) -> tuple[Any, ...]:
    """What two samples must share to be in one batch; nothing is padded or repeated."""

    def shape(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape)
        if isinstance(value, list | tuple):
            return tuple(shape(item) for item in value)
        return repr(value)

    return tuple((name, type(value).__name__, shape(value.cond)) for name, value in sorted(conditioning.items()))


def batched(rows: Sequence[Conditioning], device: torch.device) -> dict[str, Any]:
    """The model's arguments for a batch: row i of each tensor belongs to sample i."""
    first, *others = rows
    joined = {name: value.concat([row[name] for row in others]) for name, value in first.items()}
    return map_tensors(lambda tensor: tensor.to(device), joined)
