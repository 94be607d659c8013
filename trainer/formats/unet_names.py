"""The names of a UNet's layers in diffusers and in the original code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .layer_names import diffusers_unet_to_sgm


@dataclass(frozen=True)
class UnetLayer:
    """A layer of a UNet.

    Attributes:
        diffusers, native: its path in diffusers and in the original code, which is also ComfyUI's.
        kernel: the height and width of a convolution's kernel; 0 for other layers.
    """

    diffusers: str
    native: str
    kernel: int


_SD1 = (4, 2, (1, 2, 3), 1)
_UNETS: dict[str, tuple[int, int, tuple[int, ...] | None, int]] = {
    "sd15": _SD1,
    "sd2": _SD1,
    "sd2_v": _SD1,
    "sdxl": (3, 2, None, 10),
    "demo": (2, 1, None, 1),
}
"""For each UNet: the number of blocks, of layers in each, the up blocks with attention, and the deepest transformer."""

_IN_ATTENTION = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v")
_IN_TRANSFORMER = (*_IN_ATTENTION, "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")
_IN_RESNET = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
_AROUND = (
    *("conv_in", "conv_norm_out", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"),
    *("add_embedding.linear_1", "add_embedding.linear_2"),
)
_KERNELS = {**dict.fromkeys(("conv_in", "conv_out", "conv1", "conv2", "conv"), 3), "conv_shortcut": 1}
_CONVOLVED_PROJECTIONS = ("sd15", "demo")
"""Architectures whose transformers begin and end with a 1x1 convolution; those of others have linear layers there."""


def unet_layers(architecture: str) -> Iterator[UnetLayer]:
    """Yield the layers of the UNet of the architecture with this id; none if it has no UNet.

    They include more layers than the model has: attention in every block, and the deepest transformer everywhere.
    """
    if architecture not in _UNETS:
        return
    blocks, layers, attention_up_blocks, depth = _UNETS[architecture]
    for path in _paths(blocks, layers, depth):
        kernel = _KERNELS.get(path.rpartition(".")[2], 0)
        if architecture in _CONVOLVED_PROJECTIONS and path.endswith(("proj_in", "proj_out")):
            kernel = 1
        yield UnetLayer(path, diffusers_unet_to_sgm(path, layers, attention_up_blocks), kernel)


def _paths(blocks: int, layers: int, depth: int) -> Iterator[str]:
    in_attention = ["norm", "proj_in", "proj_out"]
    in_attention += [f"transformer_blocks.{number}.{inner}" for number in range(depth) for inner in _IN_TRANSFORMER]

    def inside(block: str, count: int) -> Iterator[str]:
        for layer in range(count):
            yield from (f"{block}.resnets.{layer}.{inner}" for inner in _IN_RESNET)
            yield from (f"{block}.attentions.{layer}.{inner}" for inner in in_attention)

    yield from _AROUND
    yield from inside("mid_block", 2)
    for block in range(blocks):
        yield from inside(f"down_blocks.{block}", layers)
        yield f"down_blocks.{block}.downsamplers.0.conv"
        yield from inside(f"up_blocks.{block}", layers + 1)
        yield f"up_blocks.{block}.upsamplers.0.conv"
