"""Applying LoRAs to MODEL and CLIP: which keys match, and what is reported when some do not."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.lora
import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.lora_model import LoraModel
from lora_crucible.formats.lora_stack import StackEntry
from lora_crucible.formats.names import layer_names
from lora_crucible.models.comfyui.applying import with_lora
from lora_crucible.models.comfyui.naming import file_keys
from lora_crucible.models.comfyui.stacking import OwnLora, apply_stack
from safetensors.torch import save_file
from tiny_architectures import TINY

TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
ATTENTION = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(sizes, rank=2, name="x", **metadata):
    """Return a LoRA filled with ones in kohya's format, from the output and input size of each layer."""
    tensors = {}
    for layer, (rows, columns) in sizes.items():
        tensors[f"{layer}.lora_down.weight"] = torch.ones(rank, columns)
        tensors[f"{layer}.lora_up.weight"] = torch.ones(rows, rank)
        tensors[f"{layer}.alpha"] = torch.tensor(1.0)
    return LoraModel(tensors, name, metadata)


@pytest.fixture
def fitting(demo):
    """The output and input sizes of some of the demo model's layers, by key."""
    shapes = {name: tuple(parameter.shape) for name, parameter in demo[0].model.named_parameters()}
    keys = file_keys(demo[0].model, ARCHITECTURES["demo"])
    return {key: shapes[f"diffusion_model.{path}.weight"] for path, key in keys.items() if "attn2_to_" in key}


def patched_weights(patcher):
    return set(patcher.patches)


def test_every_key_finds_its_place(demo, fitting):
    model, clip, _ = demo
    applied = with_lora(model, clip, lora({**fitting, TEXT: (128, 128)}), 1.0, 0.5)
    assert (applied.matched, applied.unmatched, applied.without_clip) == (3 * len(fitting) + 3, (), 0)
    assert applied.architecture.id == "demo"
    assert len(patched_weights(applied.model)) == len(fitting)
    assert len(patched_weights(applied.clip.patcher)) == 1
    assert not patched_weights(model)
    assert not patched_weights(clip.patcher)


def test_strength_0_hands_on_the_very_same_object(demo, fitting):
    model, clip, _ = demo
    only_clip = with_lora(model, clip, lora({**fitting, TEXT: (128, 128)}), 0.0, 1.0)
    assert only_clip.model is model
    assert only_clip.clip is not clip
    only_model = with_lora(model, clip, lora(fitting), 1.0, 0.0)
    assert only_model.clip is clip
    assert only_model.model is not model


def test_a_text_encoder_part_without_a_clip(demo, fitting):
    applied = with_lora(demo[0], None, lora({**fitting, TEXT: (128, 128)}), 1.0, 1.0)
    assert (applied.clip, applied.without_clip, applied.unmatched) == (None, 3, ())
    with pytest.raises(
        CrucibleError, match=r"only the text encoder \(3 keys\), and no CLIP is connected.*Connect the CLIP output"
    ):
        with_lora(demo[0], None, lora({TEXT: (128, 128)}), 1.0, 1.0)


def test_keys_without_a_place_are_listed(demo, fitting):
    applied = with_lora(demo[0], None, lora({**fitting, "lora_unet_nowhere": (4, 4)}), 1.0, 1.0)
    assert applied.unmatched == tuple(
        f"lora_unet_nowhere.{part}" for part in ("alpha", "lora_down.weight", "lora_up.weight")
    )


def test_a_known_name_of_another_size_is_no_match(demo, fitting):
    """SD1.5 and SD2 have the same layer names; only sizes tell them apart."""
    first, *others = fitting
    wrong = {**{key: fitting[key] for key in others}, first: (999, 128)}
    applied = with_lora(demo[0], None, lora(wrong), 1.0, 1.0)
    assert {key.partition(".")[0] for key in applied.unmatched} == {first}
    assert len(patched_weights(applied.model)) == len(others)


@pytest.mark.parametrize(
    ("sizes", "made_for", "count"),
    [
        ({ATTENTION: (640, 2048)}, "Stable Diffusion XL", "0 of its 3 keys"),
        ({ATTENTION: (640, 768)}, "Stable Diffusion 1.5", "0 of its 3 keys"),
        ({"lora_unet_joint_blocks_0_x_block_attn_qkv": (4608, 1536)}, "Stable Diffusion 3 and 3.5", "0 of its 3 keys"),
        ({"lora_unet_something_else": (8, 8)}, "an unknown architecture", "0 of its 3 keys"),
    ],
)
def test_a_lora_of_another_base_names_both(demo, sizes, made_for, count):
    with pytest.raises(CrucibleError) as caught:
        with_lora(*demo[:2], lora(sizes, name="other.safetensors"), 1.0, 1.0)
    for part in ("other.safetensors does not fit", f"made for {made_for}", ARCHITECTURES["demo"].name, count):
        assert part in str(caught.value)


def test_a_lora_of_another_base_with_some_keys_in_common(demo, fitting):
    """Some of SDXL's keys match SD1.5 by chance."""
    first = next(iter(fitting))
    other = {f"lora_unet_input_blocks_{n}_1_transformer_blocks_0_attn2_to_k": (640, 2048) for n in range(4, 12)}
    with pytest.raises(CrucibleError, match=r"made for Stable Diffusion XL.*3 of its 27 keys"):
        with_lora(*demo[:2], lora({first: fitting[first], **other}), 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "layer", "size", "told"),
    [
        ("wan", "blocks.0.self_attn.q", (5120, 5120), "made for Wan 14B, and this model is Wan 2.1"),
        ("wan", "blocks.0.self_attn.q", (999, 999), "a larger model of the same architecture"),
        ("wan", "blocks.0.ffn.0", (8, 4), "a smaller model of the same architecture"),
        ("flux2", "double_blocks.0.img_attn.proj", (6144, 6144), "made for Flux.2 dev, and this model is Flux.2."),
    ],
)
def test_a_lora_for_a_model_of_another_size(name, layer, size, told):
    model = TINY[name].model()
    rows, columns = comfy.utils.get_attr(model.model, f"diffusion_model.{layer}.weight").shape
    with pytest.raises(CrucibleError) as caught:
        with_lora(model, None, lora({f"diffusion_model.{layer}": size}), 1.0, 1.0)
    for part in (
        told,
        f"{layer} is {size[0]} x {size[1]} in the LoRA and {rows} x {columns} in the model",
        "0 of its 3",
    ):
        assert part in str(caught.value)


def test_the_keys_of_the_file_are_counted():
    """Joining, renaming and multiplying out make more or fewer keys than the file has."""
    model = TINY["flux1"].model()
    width = comfy.utils.get_attr(model.model, "diffusion_model.single_blocks.0.linear2.weight").shape[0]
    block = "transformer.base_model.model.single_transformer_blocks.0.attn."
    sizes = {f"{block}{name}": (width, width) for name in ("to_q", "to_k")}
    file = {
        key.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): tensor
        for key, tensor in lora(sizes).items()
        if not key.endswith("alpha")
    }
    nowhere = {f"nowhere.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    applied = with_lora(model, None, file | nowhere, 1.0, 1.0)
    assert (applied.matched, applied.unmatched) == (4, tuple(nowhere))
    with pytest.raises(CrucibleError, match=r"to_v is broken"):
        with_lora(model, None, file | {f"{block}to_v.lora_A.weight": torch.ones(2, width)}, 1.0, 1.0)
    alone = with_lora(model, None, file | {f"{block}to_v.alpha": torch.tensor(1.0)}, 1.0, 1.0)
    assert (alone.matched, alone.unmatched) == (5, ())


def test_the_factors_of_a_tucker_lokr_are_counted(demo):
    layer = "lora_unet_down_blocks_0_resnets_0_conv1"
    keys = file_keys(demo[0].model, ARCHITECTURES["demo"])
    path = next(path for path, key in keys.items() if key == layer)
    rows, columns, *kernel = comfy.utils.get_attr(demo[0].model, f"diffusion_model.{path}.weight").shape
    shapes = {"w1": (2, 2), "t2": (4, 4, *kernel), "w2_a": (4, rows // 2), "w2_b": (4, columns // 2)}
    file = {f"{layer}.lokr_{name}": torch.ones(shape) for name, shape in shapes.items()}
    applied = with_lora(demo[0], None, file, 1.0, 1.0)
    assert (applied.matched, applied.unmatched) == (4, ())


def test_fused_and_split_layers_find_their_place():
    """Z-Image's query, key and value are one fused weight; LoRA files have them as separate parts."""
    model = TINY["z_image"].model()
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    parts = {f"diffusion_model.layers.0.attention.to_{name}" for name in "qkv"}
    assert parts <= known.keys()
    applied = with_lora(model, None, lora(dict.fromkeys(parts, (384, 384))), 1.0, 1.0)
    assert (applied.matched, applied.unmatched) == (9, ())
    with pytest.raises(CrucibleError, match="0 of its 3 keys"):
        with_lora(model, None, lora({"diffusion_model.layers.0.attention.to_q": (1152, 384)}), 1.0, 1.0)


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{ATTENTION}.lora_up.weight": torch.ones(4, 2)},
        {f"{ATTENTION}.lora_up.weight": torch.ones(()), f"{ATTENTION}.lora_down.weight": torch.ones(())},
        {
            f"{ATTENTION}.lora_up.weight": torch.ones(4, 2),
            f"{ATTENTION}.lora_down.weight": torch.ones(2, 4),
            f"{ATTENTION}.alpha": torch.ones(7),
        },
    ],
    ids=["half a pair", "no dimensions", "several alphas"],
)
def test_tensors_that_make_no_layer(demo, tensors):
    with pytest.raises(CrucibleError, match="x is broken: ComfyUI's loader cannot build a layer"):
        with_lora(*demo[:2], LoraModel(tensors, "x"), 1.0, 1.0)


@pytest.fixture
def files(tmp_path, fitting):
    """Three LoRAs on disk, with the list of their names and a function that finds their files."""
    for number, name in enumerate("abc", start=1):
        tensors = {key: tensor * number / 100 for key, tensor in lora(fitting).items()}
        save_file(tensors, tmp_path / f"{name}.safetensors", {"modelspec.trigger_phrase": f"word {name}"})

    def find(name):
        path = tmp_path / name
        return path if path.is_file() else None

    return SimpleNamespace(listed=[f"{name}.safetensors" for name in "abc"], find=find)


def values(model):
    """Return every patched weight as ComfyUI computes it."""
    found = {}
    for key, patches in model.patches.items():
        weight = comfy.utils.get_attr(model.model, key)
        found[key] = comfy.lora.calculate_weight(patches, weight.clone(), key)
    return found


def stacked(demo, files, entries, own=None, model=None):
    stack = [StackEntry(f"{name}.safetensors", strength, strength) for name, strength in entries]
    return apply_stack(model or demo[0], demo[1], stack, own, files.listed, files.find)


def test_a_stack_is_what_a_chain_is(demo, files):
    entries = (("a", 0.5), ("b", -0.25), ("c", 1.0))
    model = demo[0]
    for entry in entries:
        model = stacked(demo, files, [entry], model=model).model
    together = stacked(demo, files, entries[:2], OwnLora("c.safetensors", 1.0, 1.0))
    with torch.inference_mode():
        one, other = values(model), values(together.model)
    assert one.keys() == other.keys() != set()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert together.lora_stack == [(f"{name}.safetensors", strength, strength) for name, strength in entries]
    assert together.trigger_words == "word a, word b, word c"
    assert "The strengths of the 3 LoRAs add up to 1.75" in together.info
    assert together.info.count("Matching keys: ") == 3


def test_nothing_to_apply(demo, files):
    nothing = stacked(demo, files, [("a", 0.0)])
    assert nothing.model is demo[0]
    assert nothing.clip is demo[1]
    assert (nothing.lora_stack, nothing.trigger_words) == ([], "")
    assert "pass through unchanged" in nothing.info


def test_a_nameless_lora_is_applied_and_left_out_of_the_stack(demo, files, fitting):
    """ComfyUI's built-in Train LoRA node outputs such a LoRA: a plain dict."""
    own = OwnLora(dict(lora(fitting)), 0.5, 0.5)
    result = stacked(demo, files, [("a", 0.5)], own)
    assert result.lora_stack == [("a.safetensors", 0.5, 0.5)]
    assert "This LoRA has no file" in result.info
    assert "Save LoRA Weights" in result.info
    assert len(next(iter(result.model.patches.values()))) == 2


def test_a_connected_lora_that_was_saved_is_in_the_stack(demo, files, fitting):
    result = stacked(demo, files, [], OwnLora(lora(fitting, name="b"), 0.5, 0.25))
    assert result.lora_stack == [("b.safetensors", 0.5, 0.25)]
    assert "This LoRA has no file" not in result.info


def test_what_does_not_fit_is_told(demo, files, fitting):
    partly = lora({**fitting, TEXT: (128, 128), "lora_unet_nowhere": (4, 4)}, name="b")
    result = apply_stack(demo[0], None, [], OwnLora(partly, 1.0, 1.0), files.listed, files.find)
    count = 3 * len(fitting)
    assert f"Matching keys: {count} of {count + 6}" in result.info
    assert "Warning: 3 keys do not match the demo model" in result.info
    assert "lora_unet_nowhere.alpha, lora_unet_nowhere.lora_down.weight" in result.info
    assert "The text encoder part of the LoRA (3 keys) is skipped, because no CLIP is connected" in result.info


@pytest.mark.parametrize(
    ("start", "down", "up"),
    [
        ("unet.", ".lora_A.weight", ".lora_B.weight"),
        ("base_model.model.", ".lora_A.default.weight", ".lora_B.default.weight"),
        ("unet.base_model.model.", ".lora_A.weight", ".lora_B.weight"),
    ],
)
def test_names_that_comfyui_does_not_know(demo, fitting, start, down, up):
    """UNet names of peft and newer diffusers: ComfyUI alone recognises none of these attention layers."""
    model, _, _ = demo
    plain = lora(fitting)
    renamed = LoraModel({}, "renamed")
    for key in fitting:
        ((name, _),) = layer_names(ARCHITECTURES["demo"])[key].diffusers
        path = start + name.removeprefix("unet.")
        renamed[path + down], renamed[path + up] = plain[f"{key}.lora_down.weight"], plain[f"{key}.lora_up.weight"]
    assert not comfy.lora.load_lora(dict(renamed), comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=False)
    applied = with_lora(model, None, renamed, 1.0, 1.0)
    assert applied.unmatched == ()
    assert patched_weights(applied.model) == patched_weights(with_lora(model, None, plain, 1.0, 1.0).model)
