"""Whose names the layers of LoRAs have is decided by all that is known, and never guessed in silence."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.lora_model import LoraModel
from lora_crucible.merging.architecture import architecture_of_all, undecided_text

ATTENTION = {f"transformer.transformer_blocks.{block}.attn.to_q": (3072, 3072) for block in range(3)}
"""Layers that Flux.1, Chroma, Flux.2 klein, Qwen-Image and HunyuanVideo have."""

WAN = {"diffusion_model.blocks.0.self_attn.q": (1536, 1536)}


def lora(name: str, layers, **metadata: str) -> LoraModel:
    tensors = {}
    for layer, (outputs, inputs) in layers.items():
        tensors[f"{layer}.lora_A.weight"] = torch.ones(1, 1).expand(2, inputs)
        tensors[f"{layer}.lora_B.weight"] = torch.ones(1, 1).expand(outputs, 2)
    return LoraModel(tensors, metadata=metadata, name=name)


def test_what_is_undecided_is_told_and_keeps_its_names():
    row = architecture_of_all([lora("a.safetensors", ATTENTION)])
    assert row.id == "unknown"
    told = undecided_text(row)
    assert all(part in told for part in ("Flux.1", "Qwen-Image", "--architecture"))


@pytest.mark.parametrize(
    ("metadata", "named", "of_base"),
    [
        ({"modelspec.architecture": "Qwen-Image/lora"}, "auto", ()),
        ({}, "qwen_image", ()),
        ({}, "auto", (ARCHITECTURES["qwen_image"],)),
    ],
)
def test_metadata_the_user_or_the_base_model_decide(metadata, named, of_base):
    row = architecture_of_all([lora("a.safetensors", ATTENTION, **metadata)], named, of_base)
    assert row == ARCHITECTURES["qwen_image"]
    assert undecided_text(row) == ""


def test_one_lora_decides_for_another():
    undecided, certain = (
        lora("a.safetensors", ATTENTION),
        lora("b.safetensors", {"transformer.transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072)}),
    )
    assert architecture_of_all([undecided, certain]).id == "qwen_image"


def test_architectures_with_the_same_names_need_no_decision():
    layers = {f"lora_unet_double_blocks_{block}_img_attn_qkv": (9216, 3072) for block in range(19)}
    row = architecture_of_all([lora("a.safetensors", layers)])
    assert row.name == "Flux.1 or Chroma"
    assert undecided_text(row) == ""


def test_loras_of_different_models():
    qwen = lora("a.safetensors", ATTENTION, ss_base_model_version="qwen_image")
    with pytest.raises(
        CrucibleError, match=r"(?s)a.safetensors is for Qwen-Image.*b.safetensors is for Wan.*leave one"
    ):
        architecture_of_all([qwen, lora("b.safetensors", WAN)])
    with pytest.raises(CrucibleError, match=r"new.safetensors has none of that model's layers.*new_blocks.0.q"):
        architecture_of_all([qwen, lora("new.safetensors", {"new_blocks.0.q": (8, 8)})])


def test_a_named_architecture_without_the_layers():
    with pytest.raises(CrucibleError, match=r"a.safetensors is not for Wan.*transformer_blocks.0.attn.to_q"):
        architecture_of_all([lora("a.safetensors", ATTENTION)], "wan")
