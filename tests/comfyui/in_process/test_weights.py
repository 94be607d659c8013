"""Looking up weights of models and text encoders by LoRA layer, and baking LoRAs into checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.sd
import models
import pytest
import test_forms as forms
import test_text_training as text
import torch
from lora_crucible.cli.main import main
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.formats.names import layer_names
from lora_crucible.models.comfyui import naming
from lora_crucible.models.comfyui.weights import base_weights_of
from safetensors.torch import load_file, save_file
from tiny_architectures import TINY
from torch import Tensor

STRENGTH, CLIP_STRENGTH = 0.7, -0.4
TEXT_ENCODERS = {"sd15": ("clip_l",), "sd2": ("clip_h",), "sdxl": ("clip_l", "clip_g")}

LIKE_SD15 = {
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1] * 6 + [0] * 2,
    "transformer_depth_output": [1] * 9 + [0] * 3,
}
"""The blocks of SD1.5 and SD2, because their layer names depend on these."""


@pytest.fixture(params=TEXT_ENCODERS)
def model_and_clip(request):
    tiny = TINY[request.param]
    blocks = models.SDXL if request.param == "sdxl" else {**tiny.config, **LIKE_SD15}
    with torch.inference_mode():
        model = replace(tiny, config=blocks).model()
        sizes = {f"{name}_model_config": text.small_clip(32) for name in TEXT_ENCODERS[request.param]}
        clip = comfy.sd.CLIP(model.model.model_config.clip_target(), model_options={**sizes, "dtype": torch.float32})
        text.filled(clip.cond_stage_model)
    return model, clip


def text_keys(clip) -> dict[str, str]:
    keys = naming.clip_keys(clip.cond_stage_model)
    keys.pop("clip_l.transformer.text_projection", None)  # it is unused and in no checkpoint
    return keys


def weights(model, clip) -> dict[str, Tensor]:
    """Return the weights of all layers that a LoRA can change, by key."""
    found = {key: weight for key, (_, _, weight) in forms.weights_of(model.model).items()}
    for path, key in text_keys(clip).items():
        found[key] = clip.cond_stage_model.get_parameter(f"{path}.weight").detach()
    return found


def written(model, clip, path: Path) -> dict[str, Tensor]:
    """Write a file in kohya's format with alternating LoRA and DoRA layers; return its tensors."""
    torch.manual_seed(1)
    tensors = {}
    for number, (key, weight) in enumerate(weights(model, clip).items()):
        method = (forms.lora, forms.dora)[number % 2]
        layer = method(len(weight), tuple(weight.shape[1:]))
        tensors |= {key + suffix: tensor.contiguous() for suffix, tensor in layer.items()}
    # These models are too small to be recognised by their sizes, so the metadata gives the architecture.
    save_file(tensors, path, {"modelspec.architecture": naming.architecture_of(model.model).modelspec})
    return tensors


def saved_by_core(model, clip, path: Path) -> dict[str, Tensor]:
    """Save a checkpoint with ComfyUI's own function and return its tensors."""
    with torch.inference_mode():
        comfy.sd.save_checkpoint(str(path), model, clip)
    return load_file(path)


def test_the_table_has_every_layer_of_the_text_encoders(model_and_clip):
    model, clip = model_and_clip
    names = layer_names(naming.architecture_of(model.model))
    assert {f"text_encoders.{path}": key for path, key in text_keys(clip).items()}.items() <= {
        (layer.native, key) for key, layer in names.items()
    }


def test_weights_by_key(model_and_clip):
    model, clip = model_and_clip
    expected = weights(model, clip)
    found = base_weights_of(model, clip)
    assert all(torch.equal(found(key), weight) for key, weight in expected.items())
    assert any(key.startswith("lora_te") for key in expected)
    assert found("lora_unet_nowhere") is None
    for alone, has_text in ((base_weights_of(model, None), False), (base_weights_of(None, clip), True)):
        assert {key for key in expected if alone(key) is not None} == {
            key for key in expected if key.startswith("lora_te") == has_text
        }


def test_weights_are_those_without_loras(model_and_clip, tmp_path: Path):
    model, clip = model_and_clip
    expected = {key: weight.clone() for key, weight in weights(model, clip).items()}
    file = written(model, clip, tmp_path / "x.safetensors")
    found = base_weights_of(*comfy.sd.load_lora_for_models(model, clip, file, 1.0, 1.0))
    assert all(torch.equal(found(key), weight) for key, weight in expected.items())


def test_baked_as_core_saves_it(model_and_clip, tmp_path: Path):
    """This includes text encoders whose attention is one matrix in a checkpoint but three layers in a LoRA."""
    model, clip = model_and_clip
    lora, base, baked = (tmp_path / f"{name}.safetensors" for name in ("lora", "base", "baked"))
    file = written(model, clip, lora)
    before = saved_by_core(model, clip, base)
    patched = comfy.sd.load_lora_for_models(model, clip, file, STRENGTH, CLIP_STRENGTH)
    expected = saved_by_core(*patched, tmp_path / "by_core.safetensors")
    arguments = [f"{lora}:{STRENGTH}:{CLIP_STRENGTH}", "--into", str(base), "--output", str(baked)]
    assert main(["merge", *arguments]) == 0
    found = load_file(baked)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=lambda told, name=name: f"{name}: {told}", **forms.CLOSE)
    changed = {name for name, tensor in expected.items() if not torch.equal(tensor, before[name])}
    assert any("self_attn.q_proj" in name or "attn.in_proj_weight" in name for name in changed)


def test_merged_with_text_encoders(model_and_clip, tmp_path: Path):
    """Merging with a base checkpoint turns a DoRA into a LoRA with the same effect."""
    model, clip = model_and_clip
    lora, base, merged = (tmp_path / f"{name}.safetensors" for name in ("lora", "base", "merged"))
    file = written(model, clip, lora)
    saved_by_core(model, clip, base)
    expected = saved_by_core(*comfy.sd.load_lora_for_models(model, clip, file, 1.0, 1.0), tmp_path / "a.safetensors")
    arguments = [str(lora), "--base", str(base), "--rank", "128", "--output", str(merged)]
    assert main(["merge", *arguments]) == 0
    file, _ = read_lora(merged)
    assert not any("dora" in key for key in file)
    found = saved_by_core(*comfy.sd.load_lora_for_models(model, clip, file, 1.0, 1.0), tmp_path / "b.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
