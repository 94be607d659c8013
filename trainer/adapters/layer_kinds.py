"""Which layers of a diffusion model are attention and which feed-forward, by their paths.

One set of names for all architectures, in the original code's and in diffusers' words. What embeds the timestep or
the prompt is neither, nor what modulates a block by them.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(blocks|layers|refiner|attentions)\.\d+\.")
"""An item of a list of blocks: embeddings have an "mlp" too, but are in none."""

_NEITHER = re.compile(r"^(txt_in|llm_adapter)\.|adaln|modulation", re.IGNORECASE)
"""Refiners of the text embedding, which other trainers leave alone and diffusers has no place for, and modulation."""

_ATTENTION = re.compile(r"(^|[._])(attn\d*|attention)([._]|$)|(^|\.)single_blocks\.\d+\.linear[12]$")
_FEED_FORWARD = re.compile(r"(^|[._])(ff|ffn|mlp|mlp[XC]|feed_forward)(_context|_i|_t)?([._]|$)")


def is_attention(path: str) -> bool:
    """Whether a layer's path is one of attention's. A fused layer counts that has attention in it: Flux's single blocks
    have query, key, value and feed-forward in one."""
    return _ATTENTION.search(path) is not None and _NEITHER.search(path) is None


def is_feed_forward(path: str) -> bool:
    return bool(_FEED_FORWARD.search(path) and _BLOCK.search(path)) and _NEITHER.search(path) is None
