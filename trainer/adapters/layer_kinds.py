"""Recognize the attention and feed-forward layers of a diffusion or language model by their paths.

One set of patterns covers all architectures, with the original code's, diffusers' and transformers' names. Layers that
embed the timestep or the prompt, or modulate a block by them, are neither.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(blocks|layers|refiner|attentions|(^|\.)h)\.\d+\.")
"""An item of a list of blocks. Embeddings can have an "mlp" too, but are not in such a list."""

_NEITHER = re.compile(r"^(txt_in|llm_adapter)\.|adaln|modulation", re.IGNORECASE)
"""Modulation, and refiners of the text embedding, which other trainers do not train and diffusers has no names for."""

_ATTENTION = re.compile(r"(^|[._])(attn\d*|attention)([._]|$)|(^|\.)single_blocks\.\d+\.linear[12]$")
_FEED_FORWARD = re.compile(
    r"(^|[._])(ff|ffn|mlp|mlp[XC]|feed_forward)(_context|_i|_t)?([._]|$)|decoder\.layers\.\d+\.fc[12]$"
)


def is_attention(path: str) -> bool:
    """Return whether a path is that of an attention layer.

    Fused layers that include attention count: Flux's single blocks have query, key, value and feed-forward in one.
    """
    return _ATTENTION.search(path) is not None and _NEITHER.search(path) is None


def is_feed_forward(path: str) -> bool:
    """Return whether a path is that of a feed-forward layer in a block."""
    return bool(_FEED_FORWARD.search(path) and _BLOCK.search(path)) and _NEITHER.search(path) is None
