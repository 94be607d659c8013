"""Text encoders that are trained: captions are encoded anew in every step, with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...adapters import AdaptedLayer, AdapterSpec
from . import attaching, naming
from .inplace import safe_model


class LiveTextEncoder:
    """The CLIP of a graph, with all text encoders in it."""

    def __init__(self, clip: Any) -> None:
        self._clip = clip
        self._model = clip.cond_stage_model

    @property
    def patcher(self) -> Any:
        """What ComfyUI's model management loads."""
        return self._clip.patcher

    @contextmanager
    def attached(self, spec: AdapterSpec) -> Iterator[dict[str, AdaptedLayer]]:
        """Adapters on the text encoders, by file key. ComfyUI computes text encoders in float32."""
        keys = naming.text_encoder_keys(self._model)
        device = self.patcher.load_device
        without = attaching.Checkpointing(False)
        with attaching.attached(self._model, spec, keys, device, torch.float32, without) as layers:
            yield layers

    def encode(self, caption: str) -> list[Any]:
        """ComfyUI's conditioning list for a caption. The text encoders must be loaded."""
        model = self._model
        model.reset_clip_options()
        if self._clip.layer_idx is not None:
            model.set_clip_options({"layer": self._clip.layer_idx})
        model.set_clip_options({"execution_device": self.patcher.load_device})
        embedding, pooled, *more = safe_model(model.encode_token_weights)(
            self._clip.tokenize(caption, disable_weights=True)
        )
        extra: dict[str, Tensor] = {"pooled_output": pooled, **(more[0] if more else {})}
        return [[embedding, extra]]
