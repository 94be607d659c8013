"""The names that programs use for the layers of an architecture, available without loading a model.

ComfyUI and the original trainers use the original code's name ("double_blocks.0.img_attn.qkv"). diffusers uses its own,
or several where it splits a layer into parts ("transformer_blocks.0.attn.to_q" and so on). Architectures for which
diffusers keeps the original names, or for which nobody writes LoRAs with diffusers' names, have no table: their layers
keep the name that the file has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

from .architectures import Architecture
from .layer_names import diffusers_unet_to_sgm, kohya_key, text_encoder_key

BLOCKS = 128
"""The number of blocks of one kind that tables cover, more than any model has."""


@dataclass(frozen=True)
class Place:
    """The place that a name refers to: a layer, or a range of its outputs.

    Attributes:
        key: the layer's key as in memory (kohya's format).
        first, count, of: the range of outputs, which starts at first/of and covers count/of of them.
        reorder: a function that puts rows from the order of the program with this name into the layer's order; None
            if the order is the same.
    """

    key: str
    first: int = 0
    count: int = 1
    of: int = 1
    reorder: Callable[[Tensor], Tensor] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the place is the whole layer."""
        return self.count == self.of

    def rows(self, total: int) -> slice:
        """Return the range as a slice of the layer's `total` outputs."""
        return slice(self.first * total // self.of, (self.first + self.count) * total // self.of)


@dataclass(frozen=True)
class LayerNames:
    """The names of one layer.

    Attributes:
        key: the layer's key in memory.
        native: the name that ComfyUI's loader knows: "diffusion_model.double_blocks.0.img_attn.qkv".
        diffusers: the name and place of each part in diffusers: "transformer.transformer_blocks.0.attn.to_q".
        kernel: the height and width of a UNet convolution's kernel; 0 for other layers.
    """

    key: str
    native: str
    diffusers: tuple[tuple[str, Place], ...]
    kernel: int = 0


@cache
def layer_names(architecture: Architecture) -> dict[str, LayerNames]:
    """Return the names of an architecture's layers, by key; empty if it has no table.

    They include more layers than any model has, to cover models of every size.
    """
    found = [*_denoiser(architecture), *_text_encoders(architecture)]
    return {names.key: names for names in found}


@cache
def places(architecture: Architecture) -> Mapping[str, Place]:
    """Return the place of every name in an architecture's table, by the name as `flat` spells it."""
    found: dict[str, Place] = {}
    for names in layer_names(architecture).values():
        spellings = [(names.native, Place(names.key)), *names.diffusers]
        found.update((flat(spelling), place) for spelling, place in spellings)
        if names.native.endswith(".linear1") and len(names.diffusers) == len(_SHARES["linear1"]):
            found[flat(f"{names.native}_qkv")] = Place(names.key, 0, 3, sum(_SHARES["linear1"]))  # XLabs' part of it
    return found


def place_of(name: str, architecture: Architecture) -> Place | None:
    """Return the place that a layer name in a file refers to; None if the name is unknown."""
    return places(architecture).get(flat(name))


_DENOISER = (
    *("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_", "base_model.model.", "model.diffusion_model."),
    *("diffusion_model.", "transformer.", "unet."),
)
_TEXT_ENCODERS = {
    "te1:": (
        *("lora_te_", "lora_te1_", "text_encoder."),
        *("text_encoders.clip_l.transformer.", "text_encoders.clip_h.transformer."),
    ),
    "te2:": ("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer."),
}
_OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def flat(name: str) -> str:
    """Return a layer name in a spelling that all programs share.

    Program prefixes are removed, dots become underscores, and names of text encoders start with "te1:" or "te2:".
    """
    if name.startswith("base_model.model.text_model."):  # written by peft for the text encoder alone
        name = "text_encoder." + name.removeprefix("base_model.model.")
    for text_encoder, prefixes in _TEXT_ENCODERS.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                return text_encoder + _flat_in_clip(name.removeprefix(prefix).removeprefix("base_model.model."))
    stripped = True
    while stripped:
        prefix = next((prefix for prefix in _DENOISER if name.startswith(prefix)), "")
        name, stripped = name.removeprefix(prefix), bool(prefix)
    name = name.replace(".processor.", ".")
    return (f"{name}.0" if name.endswith((".attn1.to_out", ".attn2.to_out")) else name).replace(".", "_")


def _flat_in_clip(name: str) -> str:
    start, _, last = name.rpartition(".")
    return f"{start}.{_OLD_ATTENTION[last]}".replace(".", "_") if last in _OLD_ATTENTION else name.replace(".", "_")


def swap_halves(rows: Tensor) -> Tensor:
    """Swap the halves of the rows: diffusers and the original code store scale and shift in opposite order."""
    return torch.cat(rows.chunk(2)[::-1])


def _denoiser(architecture: Architecture) -> Iterator[LayerNames]:
    if architecture.id in _UNETS:
        yield from _unet(architecture, *_UNETS[architecture.id])
        return
    for row in _TABLES.get(architecture.id, ()):
        native, *parts = row.split()
        shares = _SHARES.get(native.rpartition(".")[2], (1,) * len(parts)) if len(parts) > 1 else (1,)
        starts = (0, *accumulate(shares))
        for block in range(BLOCKS if "#" in native else 1):
            path = native.replace("#", str(block))
            key = kohya_key(path)
            yield LayerNames(
                key,
                f"diffusion_model.{path}",
                tuple(
                    (
                        "transformer." + part.removesuffix("~").replace("#", str(block)),
                        Place(key, start, share, sum(shares), swap_halves if part.endswith("~") else None),
                    )
                    for part, start, share in zip(parts or [native], starts, shares, strict=False)
                ),
            )


_SHARES = {"linear1": (1, 1, 1, 4)}
"""The relative sizes of a layer's parts where they are not equal, by the end of the layer's name: the feed-forward part
of Flux's single blocks is four times as wide as the others."""

_DOUBLE_BLOCKS = """
double_blocks.#.img_attn.qkv transformer_blocks.#.attn.to_q transformer_blocks.#.attn.to_k transformer_blocks.#.attn.to_v
double_blocks.#.txt_attn.qkv transformer_blocks.#.attn.add_q_proj transformer_blocks.#.attn.add_k_proj transformer_blocks.#.attn.add_v_proj
double_blocks.#.img_attn.proj transformer_blocks.#.attn.to_out.0
double_blocks.#.txt_attn.proj transformer_blocks.#.attn.to_add_out
img_in x_embedder
txt_in context_embedder
final_layer.linear proj_out
final_layer.adaLN_modulation.1 norm_out.linear~
"""  # noqa: E501

_FLUX1 = """
double_blocks.#.img_mod.lin transformer_blocks.#.norm1.linear
double_blocks.#.txt_mod.lin transformer_blocks.#.norm1_context.linear
double_blocks.#.img_mlp.0 transformer_blocks.#.ff.net.0.proj
double_blocks.#.img_mlp.2 transformer_blocks.#.ff.net.2
double_blocks.#.txt_mlp.0 transformer_blocks.#.ff_context.net.0.proj
double_blocks.#.txt_mlp.2 transformer_blocks.#.ff_context.net.2
single_blocks.#.linear1 single_transformer_blocks.#.attn.to_q single_transformer_blocks.#.attn.to_k single_transformer_blocks.#.attn.to_v single_transformer_blocks.#.proj_mlp
single_blocks.#.linear2 single_transformer_blocks.#.proj_out
single_blocks.#.modulation.lin single_transformer_blocks.#.norm.linear
time_in.in_layer time_text_embed.timestep_embedder.linear_1
time_in.out_layer time_text_embed.timestep_embedder.linear_2
vector_in.in_layer time_text_embed.text_embedder.linear_1
vector_in.out_layer time_text_embed.text_embedder.linear_2
guidance_in.in_layer time_text_embed.guidance_embedder.linear_1
guidance_in.out_layer time_text_embed.guidance_embedder.linear_2
"""  # noqa: E501

_CHROMA = """
distilled_guidance_layer.in_proj
distilled_guidance_layer.out_proj
distilled_guidance_layer.layers.#.in_layer distilled_guidance_layer.layers.#.linear_1
distilled_guidance_layer.layers.#.out_layer distilled_guidance_layer.layers.#.linear_2
"""

_FLUX2 = """
double_blocks.#.img_mlp.0 transformer_blocks.#.ff.linear_in
double_blocks.#.img_mlp.2 transformer_blocks.#.ff.linear_out
double_blocks.#.txt_mlp.0 transformer_blocks.#.ff_context.linear_in
double_blocks.#.txt_mlp.2 transformer_blocks.#.ff_context.linear_out
single_blocks.#.linear1 single_transformer_blocks.#.attn.to_qkv_mlp_proj
single_blocks.#.linear2 single_transformer_blocks.#.attn.to_out
time_in.in_layer time_guidance_embed.timestep_embedder.linear_1
time_in.out_layer time_guidance_embed.timestep_embedder.linear_2
guidance_in.in_layer time_guidance_embed.guidance_embedder.linear_1
guidance_in.out_layer time_guidance_embed.guidance_embedder.linear_2
double_stream_modulation_img.lin double_stream_modulation_img.linear
double_stream_modulation_txt.lin double_stream_modulation_txt.linear
single_stream_modulation.lin single_stream_modulation.linear
"""

_SD3 = """
joint_blocks.#.x_block.attn.qkv transformer_blocks.#.attn.to_q transformer_blocks.#.attn.to_k transformer_blocks.#.attn.to_v
joint_blocks.#.context_block.attn.qkv transformer_blocks.#.attn.add_q_proj transformer_blocks.#.attn.add_k_proj transformer_blocks.#.attn.add_v_proj
joint_blocks.#.x_block.attn2.qkv transformer_blocks.#.attn2.to_q transformer_blocks.#.attn2.to_k transformer_blocks.#.attn2.to_v
joint_blocks.#.x_block.attn.proj transformer_blocks.#.attn.to_out.0
joint_blocks.#.context_block.attn.proj transformer_blocks.#.attn.to_add_out
joint_blocks.#.x_block.attn2.proj transformer_blocks.#.attn2.to_out.0
joint_blocks.#.x_block.mlp.fc1 transformer_blocks.#.ff.net.0.proj
joint_blocks.#.x_block.mlp.fc2 transformer_blocks.#.ff.net.2
joint_blocks.#.context_block.mlp.fc1 transformer_blocks.#.ff_context.net.0.proj
joint_blocks.#.context_block.mlp.fc2 transformer_blocks.#.ff_context.net.2
joint_blocks.#.x_block.adaLN_modulation.1 transformer_blocks.#.norm1.linear
context_embedder
x_embedder.proj pos_embed.proj
t_embedder.mlp.0 time_text_embed.timestep_embedder.linear_1
t_embedder.mlp.2 time_text_embed.timestep_embedder.linear_2
y_embedder.mlp.0 time_text_embed.text_embedder.linear_1
y_embedder.mlp.2 time_text_embed.text_embedder.linear_2
final_layer.linear proj_out
final_layer.adaLN_modulation.1 norm_out.linear~
"""  # noqa: E501

_Z_IMAGE_BLOCK = """
BLOCK.#.attention.qkv BLOCK.#.attention.to_q BLOCK.#.attention.to_k BLOCK.#.attention.to_v
BLOCK.#.attention.out BLOCK.#.attention.to_out.0
BLOCK.#.feed_forward.w1
BLOCK.#.feed_forward.w2
BLOCK.#.feed_forward.w3
BLOCK.#.adaLN_modulation.0
"""
_Z_IMAGE = (
    "".join(_Z_IMAGE_BLOCK.replace("BLOCK", name) for name in ("layers", "context_refiner", "noise_refiner"))
    + """
x_embedder all_x_embedder.2-1
final_layer.linear all_final_layer.2-1.linear
final_layer.adaLN_modulation.1 all_final_layer.2-1.adaLN_modulation.1
cap_embedder.1
t_embedder.mlp.0
t_embedder.mlp.2
"""
)

_QWEN_IMAGE = """
transformer_blocks.#.attn.to_q
transformer_blocks.#.attn.to_k
transformer_blocks.#.attn.to_v
transformer_blocks.#.attn.add_q_proj
transformer_blocks.#.attn.add_k_proj
transformer_blocks.#.attn.add_v_proj
transformer_blocks.#.attn.to_out.0
transformer_blocks.#.attn.to_add_out
transformer_blocks.#.img_mlp.net.0.proj
transformer_blocks.#.img_mlp.net.2
transformer_blocks.#.txt_mlp.net.0.proj
transformer_blocks.#.txt_mlp.net.2
transformer_blocks.#.img_mod.1
transformer_blocks.#.txt_mod.1
img_in
txt_in
time_text_embed.timestep_embedder.linear_1
time_text_embed.timestep_embedder.linear_2
norm_out.linear
proj_out
"""

_WAN = """
patch_embedding
blocks.#.self_attn.q blocks.#.attn1.to_q
blocks.#.self_attn.k blocks.#.attn1.to_k
blocks.#.self_attn.v blocks.#.attn1.to_v
blocks.#.self_attn.o blocks.#.attn1.to_out.0
blocks.#.cross_attn.q blocks.#.attn2.to_q
blocks.#.cross_attn.k blocks.#.attn2.to_k
blocks.#.cross_attn.v blocks.#.attn2.to_v
blocks.#.cross_attn.o blocks.#.attn2.to_out.0
blocks.#.cross_attn.k_img blocks.#.attn2.add_k_proj
blocks.#.cross_attn.v_img blocks.#.attn2.add_v_proj
blocks.#.ffn.0 blocks.#.ffn.net.0.proj
blocks.#.ffn.2 blocks.#.ffn.net.2
text_embedding.0 condition_embedder.text_embedder.linear_1
text_embedding.2 condition_embedder.text_embedder.linear_2
time_embedding.0 condition_embedder.time_embedder.linear_1
time_embedding.2 condition_embedder.time_embedder.linear_2
time_projection.1 condition_embedder.time_proj
img_emb.proj.1 condition_embedder.image_embedder.ff.net.0.proj
img_emb.proj.3 condition_embedder.image_embedder.ff.net.2
head.head proj_out
"""


def _rows(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.splitlines() if line)


_TABLES = {
    "flux1": _rows(_DOUBLE_BLOCKS + _FLUX1),
    "chroma": _rows(_DOUBLE_BLOCKS + _FLUX1 + _CHROMA),
    "flux2": _rows(_DOUBLE_BLOCKS + _FLUX2),
    "sd3": _rows(_SD3),
    "z_image": _rows(_Z_IMAGE),
    "qwen_image": _rows(_QWEN_IMAGE),
    "wan": _rows(_WAN),
}
"""The layers of each architecture, one per line: the native name, then diffusers' name for the layer or its parts if it
differs. # stands for the block number, ~ for rows whose halves are swapped."""

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


def _unet(
    architecture: Architecture, blocks: int, layers: int, attention_up_blocks: tuple[int, ...] | None, depth: int
) -> Iterator[LayerNames]:
    in_attention = ["norm", "proj_in", "proj_out"]
    in_attention += [f"transformer_blocks.{number}.{inner}" for number in range(depth) for inner in _IN_TRANSFORMER]

    def inside(block: str, count: int) -> Iterator[str]:
        for layer in range(count):
            yield from (f"{block}.resnets.{layer}.{inner}" for inner in _IN_RESNET)
            yield from (f"{block}.attentions.{layer}.{inner}" for inner in in_attention)

    paths = [*_AROUND, *inside("mid_block", 2)]
    for block in range(blocks):
        paths += [*inside(f"down_blocks.{block}", layers), f"down_blocks.{block}.downsamplers.0.conv"]
        paths += [*inside(f"up_blocks.{block}", layers + 1), f"up_blocks.{block}.upsamplers.0.conv"]
    for path in paths:
        native = diffusers_unet_to_sgm(path, layers, attention_up_blocks)
        key = kohya_key(path if architecture.naming == "diffusers" else native)
        kernel = _KERNELS.get(path.rpartition(".")[2], 0)
        if architecture.id in _CONVOLVED_PROJECTIONS and path.endswith(("proj_in", "proj_out")):
            kernel = 1
        yield LayerNames(key, f"diffusion_model.{native}", ((f"unet.{path}", Place(key)),), kernel)


_CLIPS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(("sd15", "demo"), (("lora_te", "clip_l"),)),
    **dict.fromkeys(("sd2", "sd2_v"), (("lora_te", "clip_h"),)),
    **dict.fromkeys(("sdxl", "sd3"), (("lora_te1", "clip_l"), ("lora_te2", "clip_g"))),
    "flux1": (("lora_te1", "clip_l"),),
}
"""kohya's and ComfyUI's names of each architecture's CLIP models. T5 and language models keep the names of the file."""

_CLIP_LAYERS = 32
_IN_CLIP = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def _text_encoders(architecture: Architecture) -> Iterator[LayerNames]:
    for number, (kohya, comfyui) in enumerate(_CLIPS.get(architecture.id, ())):
        diffusers = "text_encoder" if number == 0 else f"text_encoder_{number + 1}"
        for layer in range(_CLIP_LAYERS):
            for inner in _IN_CLIP:
                path = f"text_model.encoder.layers.{layer}.{inner}"
                key = text_encoder_key(kohya, path)
                native = f"text_encoders.{comfyui}.transformer.{path}"
                yield LayerNames(key, native, ((f"{diffusers}.{path}", Place(key)),))
        if comfyui == "clip_g":
            key, native = f"{kohya}_text_projection", f"text_encoders.{comfyui}.transformer.text_projection"
            yield LayerNames(key, native, ((f"{diffusers}.text_projection", Place(key)),))
