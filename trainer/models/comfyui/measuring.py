"""Dataset measurements from a graph's CLIP and VAE, without importing packages that only training needs."""

from __future__ import annotations

from typing import Any

import comfy.sd1_clip

from ...data.images.checks import ESTIMATE, TokenCounter


def token_counter(clip: Any | None) -> TokenCounter:
    """Return a token counter for the text encoder in a CLIP that accepts the longest texts, or an estimate if none."""
    parts = [] if clip is None else [clip.tokenizer, *vars(clip.tokenizer).values()]
    tokenizers = [part for part in parts if isinstance(part, comfy.sd1_clip.SDTokenizer)]
    if not tokenizers:
        return ESTIMATE
    longest = max(tokenizers, key=lambda tokenizer: tokenizer.max_length)
    special = len(longest.tokenizer("")["input_ids"])

    def count(text: str) -> int:
        return len(longest.tokenizer(text)["input_ids"]) - special

    return TokenCounter(count, longest.max_length - special, f"counted by {longest.embedding_key}", exact=True)


def latent_factor(vae: Any | None) -> int | None:
    """Return how many pixels along a side become one latent pixel, or None without a VAE."""
    return None if vae is None else int(vae.spacial_compression_encode())
