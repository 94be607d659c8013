"""Tell the architectures that a UNet's LoRA can be for."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LAYER = re.compile(
    r"(down_blocks_\d|up_blocks_\d|mid_block)_(attentions_\d_(transformer_blocks|proj_in|proj_out|norm)"
    r"|resnets_\d_|downsamplers_0_|upsamplers_0_).*"
    r"|((in|out)put_blocks_\d+_\d|middle_block_\d)_(transformer_blocks|proj_in|proj_out|norm|in_layers|out_layers"
    r"|emb_layers|skip_connection|op$|conv$).*"
    r"|(input_blocks_0_0|out_[02]|time_embed_[02]|label_emb_0_[02]|conv_in|conv_out|(time|add)_embedding_linear_[12])"
)
_CROSS_ATTENTION = {128: ("demo",), 768: ("sd15",), 1024: ("sd2", "sd2_v"), 2048: ("sdxl",)}
"""Architectures by the width of their text embeddings. Other widths (1280: SDXL's refiner) are not supported."""


def is_of_unet(name: str) -> bool:
    """Return whether a layer's name, as `flat` spells it, is that of a layer of Stable Diffusion's UNets."""
    return _LAYER.fullmatch(name) is not None


def match_unet(sizes: Mapping[str, tuple[int | None, int | None]]) -> tuple[str, ...]:
    """Return the ids of the architectures whose UNet has the layers, by the width of the text and the depth.

    Args:
        sizes: the outputs and inputs of each layer, by the name as `flat` spells it.
    """
    if widths := {columns for name, (_, columns) in sizes.items() if columns and name.endswith(_TO_TEXT)}:
        return _CROSS_ATTENTION.get(max(widths), ())
    if _any(sizes, r"_transformer_blocks_[1-9]"):  # only SDXL has several in one layer
        return ("sdxl",)
    # SDXL has only three levels, and no attention at the first.
    if _any(sizes, r"^(input_blocks_([12]|10|11)_1|output_blocks_(9|10|11)|down_blocks_(0_att|3)|up_blocks_3)_?"):
        return ("sd15", "sd2", "sd2_v")
    return ("sdxl", "sd15", "sd2", "sd2_v")


_TO_TEXT = ("attn2_to_k", "attn2_to_v")


def _any(names: Mapping[str, object], pattern: str) -> bool:
    return any(re.search(pattern, name) for name in names)
