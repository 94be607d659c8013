"""Training that continues from a file starts with the same model as ComfyUI's LoRA loader makes from that file."""

from __future__ import annotations

from pathlib import Path

import comfy.lora
import comfy.sd
import models
import pytest
import test_forms as forms
import test_text_training as text
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import parse_config
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_file import ALPHA, DOWN, MIDDLE, UP, to_state_dict, write_lora
from lora_crucible.formats.names import place_of
from lora_crucible.models.comfyui import naming
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.models.initial_lora import InitialLora, load_initial_lora
from safetensors.torch import save_file
from tiny_architectures import TINY
from torch import Tensor

CLOSE = {"rtol": 2e-4, "atol": 1e-6}
SMALLEST_EFFECT = 1e-2

Tensors = dict[str, Tensor]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.2


def of_rslora(out: int, inputs: tuple[int, ...]) -> Tensors:
    """Return rsLoRA tensors of rank 6 and alpha 4. Files store an alpha for which alpha / rank is 4 / sqrt(6)."""
    spatial = (1,) * (len(inputs) - 1)
    return {DOWN: draw(6, *inputs), UP: draw(out, 6, *spatial), ALPHA: torch.tensor(4.0 * 6**0.5)}


def of_many_ranks(out: int, inputs: tuple[int, ...]) -> Tensors:
    rank, spatial = 2 + out % 5, (1,) * (len(inputs) - 1)
    return {DOWN: draw(rank, *inputs), UP: draw(out, rank, *spatial)}


def locon_with_middle(out: int, inputs: tuple[int, ...]) -> Tensors:
    if len(inputs) == 1:
        return forms.lora(out, inputs)
    down, up = draw(4, inputs[0], 1, 1), draw(out, 4, 1, 1)
    return {DOWN: down, UP: up, MIDDLE: draw(4, 4, *inputs[1:]), ALPHA: torch.tensor(2.0)}


def plain_loha(out: int, inputs: tuple[int, ...]) -> Tensors:
    """Return LoHa tensors without Tucker decomposition of convolutions, as in files for 1x1 kernels and older ones."""
    columns = inputs[0] * (inputs[1] * inputs[2] if len(inputs) > 1 else 1)
    parts: Tensors = {ALPHA: torch.tensor(2.0)}
    for n in (1, 2):
        parts[f".hada_w{n}_a"], parts[f".hada_w{n}_b"] = draw(out, 4), draw(4, columns)
    return parts


def loha_of_tucker(out: int, inputs: tuple[int, ...]) -> Tensors:
    parts = forms.loha(out, inputs)
    return parts | {".hada_w1_a": 30 * parts[".hada_w1_a"]}


def lokr_of_other_factors(out: int, inputs: tuple[int, ...]) -> Tensors:
    """Return LoKr tensors with both matrices factorised, in shapes that peft would not choose."""
    first = 2 if inputs[0] % 2 == 0 and out % 2 == 0 else 1
    columns = inputs[0] // first * (inputs[1] * inputs[2] if len(inputs) > 1 else 1)
    return {
        ".lokr_w1_a": draw(first, 3),
        ".lokr_w1_b": draw(3, first),
        ".lokr_w2_a": 9 * draw(out // first, 3),
        ".lokr_w2_b": draw(3, columns),
        ALPHA: torch.tensor(1.0),
    }


def whole_lokr(out: int, inputs: tuple[int, ...]) -> Tensors:
    """Return LoKr tensors with two full matrices, for which alpha has no meaning."""
    first = 2 if inputs[0] % 2 == 0 and out % 2 == 0 else 1
    second = draw(out // first, inputs[0] // first, *inputs[1:])
    return {".lokr_w1": draw(first, first), ".lokr_w2": second, ALPHA: torch.tensor(1e4)}


METHODS = {
    "lora": forms.lora,
    "rslora": of_rslora,
    "many ranks": of_many_ranks,
    "middle": locon_with_middle,
    "dora": forms.dora,
    "loha": plain_loha,
    "loha of Tucker": loha_of_tucker,
    "lokr": forms.lokr,
    "lokr of other factors": lokr_of_other_factors,
    "whole lokr": whole_lokr,
    "several": lambda out, inputs: [forms.lora, forms.dora, forms.lokr, plain_loha][out // 8 % 4](out, inputs),
}


@pytest.fixture
def model():
    return models.sdxl()


@pytest.fixture
def samples():
    return models.random_samples(None, 2, channels=4, context=models.SDXL_CONTEXT, pooled=models.SDXL_POOLED)


def written(model, path: Path, method: str) -> Tensors:
    """Write a file in kohya's format with every layer of a model; return its tensors."""
    torch.manual_seed(1)
    tensors = {
        key + suffix: tensor.half().float()
        for key, (_, _, weight) in forms.weights_of(model.model).items()
        for suffix, tensor in METHODS[method](len(weight), tuple(weight.shape[1:])).items()
    }
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return tensors


def errors(base_model, samples) -> Tensor:
    with base_model.session("fp32"), torch.no_grad():
        return base_model.losses(samples, [1, 2]).errors


def continued(base_model, path: Path, **settings) -> InitialLora:
    found = load_initial_lora(parse_config({"continue_from": str(path), **settings}), base_model)
    assert found is not None
    return found


def at_step_0(base_model, lora: InitialLora, samples, saved: Path | None = None) -> Tensor:
    """Return the errors of the model when training from a file starts, and save the LoRA at that point if asked."""
    of_text = any(key.startswith("lora_te") for key in lora.layers)
    spec = AdapterSpec(4, 4.0, 0.0, "attention", start=lora.layers, text_encoder=of_text)
    with base_model.session("fp32"), base_model.attached(spec, False) as adapters:
        adapters.initialise(1)
        adapters.load(lora.layers)
        assert len(adapters) == len(lora.layers)
        if saved is not None:
            write_lora(saved, to_state_dict(adapters.layers(), torch.float32), {})
        losses = base_model.losses(samples, [1, 2])
        losses.values.sum().backward()
        assert all(parameter.grad is not None for parameter in adapters.parameters())
        with torch.no_grad(), adapters.without_effect():
            base = base_model.losses(samples, [1, 2]).errors
        assert not torch.allclose(base, losses.errors, rtol=SMALLEST_EFFECT)
        with torch.no_grad():
            torch.testing.assert_close(base_model.losses(samples, [1, 2]).errors, losses.errors)
        return losses.errors


@pytest.mark.parametrize("method", METHODS)
def test_step_0_is_the_file_in_cores_loader(model, samples, tmp_path: Path, method: str):
    file = tmp_path / "x.safetensors"
    tensors = written(model, file, method)
    applied, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    expected = errors(models.base_model(applied), samples)
    base_model = models.base_model(model)
    lora = continued(base_model, file)
    torch.testing.assert_close(at_step_0(base_model, lora, samples, tmp_path / "again.safetensors"), expected, **CLOSE)
    # A LoRA saved before the first step has the same effect.
    again = continued(base_model, tmp_path / "again.safetensors")
    torch.testing.assert_close(at_step_0(base_model, again, samples), expected, **CLOSE)


def test_the_base_without_effect_is_the_base(model, samples, tmp_path: Path):
    for method in ("several", "loha of Tucker", "lokr of other factors"):
        written(model, tmp_path / "x.safetensors", method)
        base_model = models.base_model(model)
        expected = errors(base_model, samples)
        lora = continued(base_model, tmp_path / "x.safetensors")
        with (
            base_model.session("fp32"),
            base_model.attached(AdapterSpec(4, 4.0, 0.0, "", start=lora.layers), False) as a,
        ):
            a.initialise(1)
            a.load(lora.layers)
            with torch.no_grad(), a.without_effect():
                torch.testing.assert_close(base_model.losses(samples, [1, 2]).errors, expected, **CLOSE)


def patched(model, changes: Tensors):
    """Return a clone of the model with the given changes as patches."""
    clone = model.clone()
    added = clone.add_patches({parameter: ("diff", (change,)) for parameter, change in changes.items()}, 1.0)
    assert len(added) == len(changes)
    return clone


@pytest.mark.parametrize("spelling", forms.SPELLINGS)
@pytest.mark.parametrize("architecture", ["flux1", "sd3", "z_image", "qwen_image"])
def test_step_0_of_every_spelling(tmp_path: Path, architecture: str, spelling: str):
    """This includes fused layers that other programs split, and rows in a different order."""
    tiny = TINY[architecture]
    model, samples = tiny.model(), tiny.samples(2)
    torch.manual_seed(1)
    file, changes = forms.written(model.model, spelling, "lora")
    save_file({key: tensor.contiguous() for key, tensor in file.items()}, tmp_path / "x.safetensors")
    expected = errors(models.base_model(patched(model, changes)), samples)
    base_model = models.base_model(model)
    lora = continued(base_model, tmp_path / "x.safetensors")
    assert "skipped" not in " ".join(lora.notes)
    spec = AdapterSpec(4, 4.0, 0.0, "attention", start=lora.layers)
    with base_model.session("fp32"), base_model.attached(spec, False) as adapters, torch.no_grad():
        adapters.initialise(1)
        adapters.load(lora.layers)
        found = base_model.losses(samples, [1, 2]).errors
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(found, errors(base_model, samples), rtol=1e-3)


@pytest.mark.parametrize("start", ["lora_te", "text_encoder."])
def test_step_0_with_a_text_encoders_part(demo, tmp_path: Path, start: str):
    model, clip, vae = demo
    torch.manual_seed(1)
    file = {}
    for names, _, weight in forms.weights_of(model.model).values():
        if "attn2" in names.key:
            file |= {names.key + suffix: tensor for suffix, tensor in forms.lora(*out_and_inputs(weight)).items()}
    for path in naming.text_encoder_keys(clip.cond_stage_model):
        path = path.partition(".transformer.")[2]
        weight = clip.cond_stage_model.get_parameter(f"clip_l.transformer.{path}.weight")
        if ".layers.0." in path:
            name = f"lora_te_{path.replace('.', '_')}" if start == "lora_te" else start + path
            file |= {name + suffix: 3 * tensor for suffix, tensor in forms.lora(*out_and_inputs(weight)).items()}
    save_file({key: tensor.contiguous() for key, tensor in file.items()}, tmp_path / "x.safetensors")
    expected = text.errors_through_nodes(*comfy.sd.load_lora_for_models(model, clip, file, 1.0, 1.0))
    without_text = text.errors_through_nodes(*comfy.sd.load_lora_for_models(model, clip, file, 1.0, 0.0))
    assert not torch.allclose(expected, without_text, rtol=SMALLEST_EFFECT)
    base_model = ComfyUIBaseModel(model, clip, vae)
    lora = continued(base_model, tmp_path / "x.safetensors")
    assert lora.settings(parse_config({})).train_text_encoder
    torch.testing.assert_close(at_step_0(base_model, lora, text.samples()), expected, **CLOSE)


def out_and_inputs(weight: Tensor) -> tuple[int, tuple[int, ...]]:
    return len(weight), tuple(weight.shape[1:])


def test_a_file_for_another_model(demo, tmp_path: Path):
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    save_file({key + DOWN: torch.ones(2, 2048), key + UP: torch.ones(640, 2)}, tmp_path / "xl.safetensors")
    with pytest.raises(CrucibleError) as refused:
        continued(ComfyUIBaseModel(*demo), tmp_path / "xl.safetensors")
    assert "Stable Diffusion XL" in str(refused.value)
    assert "the demo model" in str(refused.value)


@pytest.mark.parametrize("architecture", ["lumina2", "auraflow", "hidream", "hunyuan_video", "ltxv", "anima"])
def test_names_of_architectures_without_a_table(architecture: str):
    """Every name that ComfyUI's loader recognises leads to the layer that the loader applies it to."""
    model = TINY[architecture].model().model
    row = naming.architecture_of(model)
    find, shapes = naming.place_of(model, row), naming.layer_shapes(model, row)
    keys = naming.file_keys(model, row)
    checked = 0
    for name, target in comfy.lora.model_lora_keys_unet(model, {}).items():
        parameter, rows, *_ = (*target, None) if isinstance(target, tuple) else (target, None)
        path = parameter.removeprefix("diffusion_model.").removesuffix(".weight")
        if not parameter.endswith(".weight") or keys.get(path) not in shapes:
            continue
        place = find(name)
        assert place is not None
        assert place.key == keys[path]
        total = shapes[place.key][0]
        _, start, length = rows or (0, 0, total)
        assert place.rows(total) == slice(start, start + length)
        checked += 1
    assert checked


def test_the_table_and_the_models_own_map_agree():
    """Otherwise, parts of a layer found by the one would not combine with parts found by the other."""
    for architecture in ("flux1", "flux2", "sd3", "z_image", "qwen_image", "wan"):
        model = TINY[architecture].model().model
        row = naming.architecture_of(model)
        find = naming.place_of(model, row)
        for name in comfy.lora.model_lora_keys_unet(model, {}):
            in_table, found = place_of(name, row), find(name)
            if in_table is not None and found is not None:
                assert (found.key, found.first, found.count, found.of) == (
                    in_table.key,
                    in_table.first,
                    in_table.count,
                    in_table.of,
                )
                assert (found.reorder is None) == (in_table.reorder is None)
                total = torch.arange(12)
                if found.reorder is not None:
                    assert torch.equal(found.reorder(total), in_table.reorder(total))
