"""Training text encoders: captions are encoded again in every step, with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from comfy.sd1_clip import SDClipModel
from torch import Tensor, nn

from ...adapters.dropout import RowSeeds
from ...adapters.peft_layers import AdaptedLayer
from ...adapters.spec import AdapterSpec
from ...files.tensor_tree import map_tensors
from . import attaching, naming
from .frozen import Forward
from .inplace import safe_model

KEPT_BYTES = 2**30
"""The most bytes of outputs to keep for each text encoder that is not trained. T5's output for a caption takes 4 MB."""


class LiveTextEncoder:
    """A graph's CLIP with adapters on its text encoders.

    Args:
        clip: the CLIP from a loader node.
    """

    def __init__(self, clip: Any) -> None:
        self._clip = clip
        self._model = clip.cond_stage_model
        self._encode = safe_model(self._model.encode_token_weights)
        self._not_trained: dict[nn.Module, Forward] = {}

    @property
    def patcher(self) -> Any:
        """The patcher through which ComfyUI's model management loads the text encoders."""
        return self._clip.patcher

    @contextmanager
    def attached(self, spec: AdapterSpec, rows: RowSeeds) -> Iterator[dict[str, AdaptedLayer]]:
        """Attach adapters to the CLIP text encoders inside the context. ComfyUI runs text encoders in float32.

        Yields:
            The adapted layers by their key in a LoRA file.
        """
        keys = naming.text_encoder_keys(self._model)
        trained = {path.partition(".")[0] for path in keys}
        device = self.patcher.load_device
        without = attaching.Checkpointing(False)
        with attaching.attached(self._model, spec, keys, device, torch.float32, without, rows) as layers:
            self._not_trained = {
                encoder: _remembered(encoder.forward, device)
                for name, encoder in self._model.named_children()
                if isinstance(encoder, SDClipModel) and name not in trained
            }
            try:
                yield layers
            finally:
                self._not_trained = {}

    def encode(self, caption: str) -> list[Any]:
        """Return ComfyUI's conditioning list for a caption. The text encoders must be loaded."""
        model = self._model
        model.reset_clip_options()
        if self._clip.layer_idx is not None:
            model.set_clip_options({"layer": self._clip.layer_idx})
        model.set_clip_options({"execution_device": self.patcher.load_device})
        with ExitStack() as stack:
            # Only here, because sample prompts may be encoded with other options.
            for encoder, forward in self._not_trained.items():
                stack.enter_context(attaching.forward_replaced(encoder, forward))
            embedding, pooled, *more = self._encode(self._clip.tokenize(caption, disable_weights=True))
        extra: dict[str, Tensor] = {"pooled_output": pooled, **(more[0] if more else {})}
        return [[embedding, extra]]


def _remembered(forward: Forward, device: torch.device) -> Forward:
    """Return a forward function of an untrained text encoder that caches its outputs on the CPU.

    Entries are never evicted when the cache is full, because every caption is equally likely to come again.

    Args:
        forward: the text encoder's own forward function.
        device: the device to return cached outputs on.
    """
    kept: dict[tuple[tuple[int, ...], ...], Any] = {}
    room = KEPT_BYTES

    def remembered_forward(tokens: list[list[Any]]) -> Any:
        nonlocal room
        if not all(isinstance(token, int) for row in tokens for token in row):
            return forward(tokens)  # contains vectors of a textual inversion embedding, which cannot be a cache key
        key = tuple(map(tuple, tokens))
        if key in kept:
            return map_tensors(lambda tensor: tensor.to(device, copy=True), kept[key])
        with torch.no_grad():
            output = forward(tokens)
        size = output[0].nbytes  # the embedding; pooled outputs and masks are negligible
        if size <= room:
            kept[key] = map_tensors(lambda tensor: tensor.to("cpu", copy=True), output)
            room -= size
        return output

    return remembered_forward
