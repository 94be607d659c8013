"""Encoding images and captions with the VAE and CLIP of a ComfyUI graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...errors import CrucibleError
from ...files.tensor_tree import on_cpu
from ..diffusion.inputs import Encoders
from ..identity import weights_hash
from . import conditioning, memory


class ComfyUIEncoders(Encoders):
    """The encoders of a ComfyUI graph.

    Args:
        model: the `BaseModel` that the latents are for.
        clip, vae: the CLIP and VAE from a loader node.
    """

    def __init__(self, model: Any, clip: Any, vae: Any) -> None:
        self._model, self._clip, self._vae = model, clip, vae
        scaling = type(model.latent_format).__name__
        self.vae_identity = f"{patched_weights_hash(vae.patcher)}|{vae.vae_dtype}|{scaling}"
        settings = (clip.layer_idx, sorted(getattr(clip, "tokenizer_options", {}).items()))
        self.text_identity = f"{patched_weights_hash(clip.patcher)}|{settings}"

    def latent(self, pixels: Tensor, name: str) -> Tensor:
        with memory.as_in_a_node():
            encoded = self._vae.encode(pixels.unsqueeze(0)).float()
            form = self._model.latent_format
            if encoded.shape[1] != form.latent_channels:
                raise CrucibleError(
                    f"The VAE produces latents with {encoded.shape[1]} channels, but this base model expects "
                    f"{form.latent_channels}. The VAE belongs to a different model, so {name} cannot be used for "
                    "training. Connect the VAE that goes with the base model."
                )
            if form.latent_dimensions == 3 and encoded.ndim == 4:
                encoded = encoded.unsqueeze(2)  # one frame
            latent: Tensor = self._model.process_latent_in(encoded)
        return latent[0].to("cpu", copy=True)

    def caption(self, text: str) -> Any:
        with memory.as_in_a_node():
            return on_cpu(conditioning.encode_caption(self._clip, text))


def patched_weights_hash(patcher: Any) -> str:
    """Return a hash of a model's weights as loaded, and of all patches on them with their strengths."""
    weights = [
        (name, patcher.backup[name].weight if name in patcher.backup else weight)
        for name, weight in patcher.model.state_dict().items()
    ]
    strengths = []
    for key, patches in patcher.patches.items():
        for index, (strength_patch, value, strength_model, *_) in enumerate(patches):
            strengths.append(f"{key}|{index}|{strength_patch}|{strength_model}")
            weights += [(f"{key}|{index}|{i}", tensor) for i, tensor in enumerate(_tensors(value))]
    return weights_hash(weights, sorted(strengths))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in a patch, however it is structured."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "weights"):
        yield from _tensors(value.weights)
