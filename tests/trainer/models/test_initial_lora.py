"""Training runs that continue from a LoRA file."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.config.yaml_file import read_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.lora_file import ALPHA, DORA_SCALE, DOWN, UP, lora_layer, read_lora, write_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.models.initial_lora import load_initial_lora
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from torch import Tensor

pytestmark = pytest.mark.usefixtures("no_curves")

QUICK = {
    "max_train_steps": 4,
    "batch_size": 2,
    "sample_steps": 2,
    "sample_prompts": "crux",
    "measure": "never",
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def dataset():
    dataset = load_dataset(DataSettings(train_data_dir="demo"))
    return replace(dataset, images=dataset.images[:4])


class Stop(BaseException):
    pass


def stop_after(step: int) -> Callbacks:
    def stepped(report, steps):
        if report.step == step:
            raise Stop

    return Callbacks(stepped=stepped)


def train(base_model, dataset, folder: Path, hooks: Callbacks | None = None, **values) -> RunResult:
    config = parse_config({**QUICK, **values})
    return train_or_resume(base_model, dataset, config, folder, folder, hooks)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.2


def drawn_lora(out: int, inputs: tuple[int, ...], rank: int) -> dict[str, Tensor]:
    return lora_layer(draw(rank, *inputs), draw(out, rank, *[1] * (len(inputs) - 1)), 2.0)


def drawn_dora(out: int, inputs: tuple[int, ...], rank: int) -> dict[str, Tensor]:
    return drawn_lora(out, inputs, rank) | {DORA_SCALE: torch.rand(out, *[1] * len(inputs)) + 0.5}


def drawn_loha(out: int, inputs: tuple[int, ...], rank: int) -> dict[str, Tensor]:
    columns = torch.Size(inputs).numel()
    parts = {ALPHA: torch.tensor(2.0)}
    for n in (1, 2):
        parts[f".hada_w{n}_a"], parts[f".hada_w{n}_b"] = draw(out, rank), draw(rank, columns)
    return parts


def drawn_lokr(out: int, inputs: tuple[int, ...], rank: int) -> dict[str, Tensor]:
    """Return a LoKr in factors of 4, as LyCORIS makes them with its setting `factor`."""
    first = 4 if out % 4 == 0 and inputs[0] % 4 == 0 else 1
    columns = torch.Size(inputs).numel() // first
    parts = {".lokr_w1": draw(first, first), ALPHA: torch.tensor(2.0)}
    return parts | {".lokr_w2_a": 9 * draw(out // first, rank), ".lokr_w2_b": draw(rank, columns)}


METHODS = {"lora": drawn_lora, "dora": drawn_dora, "loha": drawn_loha, "lokr": drawn_lokr}


def written(base_model, path: Path, method: str = "lora", match: str = "attn", rank=None, metadata=None) -> Path:
    """Write a file for the layers whose key contains `match`, with the given rank, or with different ranks."""
    torch.manual_seed(1)
    tensors = {}
    for number, (key, shape) in enumerate(base_model.layer_shapes().items()):
        if match in key and key.startswith("lora_unet"):
            layer = METHODS[method](shape[0], tuple(shape[1:]), rank or 2 + number % 3)
            tensors |= {key + suffix: tensor for suffix, tensor in layer.items()}
    write_lora(path, tensors, metadata or {})
    return path


def rewritten(source: Path, path: Path, change) -> Path:
    tensors, metadata = read_lora(source)
    change(tensors)
    write_lora(path, tensors, metadata)
    return path


def start_of(base_model, path: Path, **values):
    return load_initial_lora(parse_config({"continue_from": str(path), **values}), base_model)


def cached(base_model, dataset, cache_folder: Path):
    from lora_crucible.data.cache import TensorCache

    with base_model.session("fp32"):
        return base_model.cache_inputs(dataset.examples(64)[:2], TensorCache(cache_folder), 0.0, True, lambda *_: None)


def errors_at_step_0(base_model, lora, samples) -> Tensor:
    spec = AdapterSpec(4, 4.0, 0.0, "attention", start=lora.layers)
    with base_model.session("fp32"), base_model.attached(spec, False) as adapters, torch.no_grad():
        adapters.initialise(1)
        adapters.load(lora.layers)
        return base_model.losses(samples, [1, 2]).errors


@pytest.fixture
def samples(base_model, dataset, tmp_path):
    return cached(base_model, dataset, tmp_path / "cache")


def errors(base_model, samples) -> Tensor:
    with base_model.session("fp32"), torch.no_grad():
        return base_model.losses(samples, [1, 2]).errors


@pytest.mark.parametrize("method", METHODS)
def test_step_0_is_what_the_file_says(small_model, samples, tmp_path, method):
    base_model = DiffusersBaseModel(small_model)
    file = written(base_model, tmp_path / "x.safetensors", method, match="")
    lora = start_of(base_model, file)
    found = errors_at_step_0(base_model, lora, samples)
    before = errors(base_model, samples)
    paths = {base_model._layers.key_of(path): path for path, _ in base_model._denoiser.named_modules() if path}
    with torch.no_grad():
        for key, layer in lora.layers.items():
            weight = base_model._denoiser.get_parameter(f"{paths[key]}.weight")
            weight += delta_weight(layer, weight).view(weight.shape)
    torch.testing.assert_close(found, errors(base_model, samples), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, before, rtol=1e-2)


def test_step_0_is_the_file_in_diffusers_loader(small_model, samples, tmp_path):
    base_model = DiffusersBaseModel(small_model)
    file = written(base_model, tmp_path / "x.safetensors")
    found = errors_at_step_0(base_model, start_of(base_model, file), samples)
    base_model._pipeline.whole.load_lora_weights(file.parent, weight_name=file.name)
    torch.testing.assert_close(found, errors(base_model, samples), rtol=1e-4, atol=1e-6)


def test_a_run_keeps_the_files_layers_and_ranks(base_model, dataset, tmp_path):
    metadata = {"modelspec.trigger_phrase": "crux"}
    file = written(base_model, tmp_path / "mine.safetensors", match="to_v", metadata=metadata)
    result = train(base_model, dataset, tmp_path / "out", continue_from=str(file))
    before, after = read_lora(file)[0], read_lora(result.files.lora)[0]
    assert {key: tensor.shape for key, tensor in before.items()} == {key: tensor.shape for key, tensor in after.items()}
    assert any(not torch.allclose(before[key], after[key].float(), atol=1e-3) for key in before)
    ranks = [len(tensor) for key, tensor in before.items() if key.endswith(DOWN)]
    assert f"Continued from mine: LoRA, ranks {min(ranks)} to {max(ranks)}, {len(ranks)} layers" in result.report
    assert "those of mine.safetensors" in result.report
    assert "target_modules =" not in result.report
    saved = read_lora(result.files.lora)[1]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads(saved["crucible.continued_from"]) == {"name": "mine", "sha256": digest}
    assert saved["modelspec.trigger_phrase"] == "crux"
    assert '"crux"' in result.report


def test_the_first_sample_is_the_files_and_the_base_without_it_is_what_counts(base_model, dataset, tmp_path):
    """The first sample shows the file's effect; effect and drift are relative to the base model without any LoRA."""
    first = train(base_model, dataset, tmp_path / "a", save_precision="fp32", learning_rate=0.02)
    values = {"continue_from": str(first.files.lora), "learning_rate": 1e-9, "measure": "always"}
    second = train(base_model, dataset, tmp_path / "b", **values)
    torch.testing.assert_close(second.samples[0], first.samples[-1], rtol=0, atol=2 / 255)
    assert not torch.allclose(second.samples[0], first.samples[0], rtol=0, atol=2 / 255)
    effect = re.search(r"captions changed by (\d\.\d+)", second.report)
    assert effect is not None
    assert float(effect[1]) > 0.01


def test_an_interrupted_run_goes_on(base_model, dataset, tmp_path):
    file = written(base_model, tmp_path / "mine.safetensors", "lokr")
    values = {"continue_from": str(file), "save_precision": "fp32"}
    whole = train(base_model, dataset, tmp_path / "whole", **values)
    with pytest.raises(Stop):
        train(base_model, dataset, tmp_path / "parts", stop_after(2), **values)
    parts = train(base_model, dataset, tmp_path / "parts", **values)
    assert "Resumed after step 2" in parts.report
    one, other = read_lora(whole.files.lora)[0], read_lora(parts.files.lora)[0]
    assert all(torch.equal(one[key], other[key]) for key in one)
    # The run is recognized by the contents of the LoRA file, wherever that is.
    moved = file.rename(tmp_path / "moved.safetensors")
    again = train(base_model, dataset, tmp_path / "parts", **{**values, "continue_from": str(moved)})
    assert "Nothing was trained" in again.report


def test_another_file_is_another_run(base_model, dataset, tmp_path):
    file = written(base_model, tmp_path / "mine.safetensors")
    with pytest.raises(Stop):
        train(base_model, dataset, tmp_path, stop_after(2), continue_from=str(file), output_name="x")
    rewritten(file, file, lambda tensors: next(iter(tensors.values())).mul_(2))
    for values in ({"continue_from": str(file)}, {}):
        result = train(base_model, dataset, tmp_path, output_name="x", **values)
        assert len(result.losses) == 4
        assert "instead of resuming x: " in result.report
        assert "continue_from is a different LoRA" in result.report


def test_the_written_config_gives_the_same_run(base_model, dataset, tmp_path):
    """Ranks that differ from layer to layer stay different."""
    file = written(base_model, tmp_path / "mine.safetensors")
    result = train(base_model, dataset, tmp_path, continue_from=str(file))
    config = read_config(result.files.folder / "config.yaml")
    assert config.lora_rank is None
    assert yaml.safe_load((result.files.folder / "config.yaml").read_text())["continue_from"] == str(file)
    again = train_or_resume(base_model, dataset, config, tmp_path, tmp_path)
    assert "Nothing was trained" in again.report


@pytest.mark.parametrize(("rank", "exact"), [(2, False), (4, True), (9, True)])
def test_a_rank_that_is_asked_for(base_model, samples, tmp_path, rank, exact):
    file = written(base_model, tmp_path / "x.safetensors")
    lora = start_of(base_model, file, lora_rank=rank)
    assert {len(layer[DOWN]) for layer in lora.layers.values()} == {rank}
    same = torch.allclose(
        errors_at_step_0(base_model, lora, samples), errors_at_step_0(base_model, start_of(base_model, file), samples)
    )
    assert same == exact
    assert any(f"resized to rank {rank}" in note for note in lora.notes)
    assert any("which lost" in note for note in lora.notes) is not exact


def test_the_settings_that_a_lora_was_trained_with_change_nothing(base_model, dataset, tmp_path):
    """So a config file can be continued by adding a single line."""
    for values in (
        {"algorithm": "rslora", "lora_rank": 9, "lora_alpha": 3.0},
        {"algorithm": "lokr", "lora_rank": 3, "lora_alpha": 2.0, "target_modules": "attention"},
        {"algorithm": "dora", "lora_rank": 3, "train_text_encoder": True},
    ):
        first = train(base_model, dataset, tmp_path, save_precision="fp32", **values)
        plain = start_of(base_model, first.files.lora)
        asked = start_of(base_model, first.files.lora, **values)
        assert plain.layers.keys() == asked.layers.keys()
        for key, layer in plain.layers.items():
            assert all(torch.equal(tensor, asked.layers[key][suffix]) for suffix, tensor in layer.items())
        resolved = asked.settings(parse_config(values))
        assert resolved.algorithm == values["algorithm"]
        assert resolved.lora_rank == values["lora_rank"]
        assert resolved.lora_alpha == pytest.approx(values.get("lora_alpha", resolved.lora_alpha))


def test_a_file_for_another_model_is_refused_before_anything_is_encoded(base_model, dataset, tmp_path):
    layers = {
        f"lora_unet_double_blocks_{block}_img_attn_qkv{suffix}": tensor
        for block in range(3)
        for suffix, tensor in lora_layer(draw(2, 32), draw(96, 2), 2.0).items()
    }
    write_lora(tmp_path / "flux.safetensors", layers, {})
    with pytest.raises(CrucibleError) as refused:
        train(base_model, dataset, tmp_path / "out", continue_from=str(tmp_path / "flux.safetensors"))
    assert "Flux.1" in str(refused.value)
    assert base_model.architecture.name in str(refused.value)
    assert "0 of its 3 layers" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_file_for_a_model_of_another_size_is_refused(base_model, tmp_path):
    file = written(base_model, tmp_path / "x.safetensors")

    def widen(tensors):
        for key in tensors:
            if key.endswith(DOWN):
                tensors[key] = torch.cat([tensors[key]] * 2, dim=1)

    with pytest.raises(CrucibleError, match="have a different size"):
        start_of(base_model, rewritten(file, file, widen))


def test_a_few_layers_too_many_are_named(base_model, tmp_path):
    file = written(base_model, tmp_path / "x.safetensors")

    def add(tensors):
        tensors |= {
            f"lora_unet_elsewhere{suffix}": one for suffix, one in lora_layer(draw(2, 8), draw(8, 2), 2.0).items()
        }
        tensors["bundle_emb.word"] = draw(4)

    before = start_of(base_model, file)
    after = start_of(base_model, rewritten(file, file, add))
    assert before.layers.keys() == after.layers.keys()
    note = next(note for note in after.notes if "were skipped" in note)
    assert "lora_unet_elsewhere" in note
    assert "bundle_emb.word" in note


@pytest.mark.parametrize(
    ("suffixes", "named", "todo"),
    [
        ({".diff": (8, 8)}, "full differences", "python -m trainer resize"),
        ({".diff_b": (8,), DOWN: (2, 8), UP: (8, 2)}, "bias differences", "LoRA"),
        ({f".{part}.weight": (2, 2) for part in ("a1", "a2", "b1", "b2")}, "GLoRA", "on top of it"),
        ({".oft_blocks": (2, 4, 4)}, "OFT", "on top of it"),
        (
            {".lokr_w1": (1, 1), ".lokr_t2": (2, 2, 1, 1), ".lokr_w2_a": (2, 8), ".lokr_w2_b": (2, 8)},
            "Tucker",
            "resize",
        ),
        ({DOWN: (2, 8), UP: (8, 2), DORA_SCALE: (1, 8)}, "DoRA with scales per input", "on top of it"),
    ],
)
def test_methods_that_cannot_be_trained(base_model, tmp_path, suffixes, named, todo):
    key = next(key for key, shape in base_model.layer_shapes().items() if "attn1_to_q" in key and shape == (8, 8))
    write_lora(tmp_path / "x.safetensors", {key + suffix: draw(*shape) for suffix, shape in suffixes.items()}, {})
    with pytest.raises(CrucibleError, match=named) as refused:
        start_of(base_model, tmp_path / "x.safetensors")
    assert todo in str(refused.value)
    assert key in str(refused.value)


def test_files_that_are_none(base_model, tmp_path):
    file = written(base_model, tmp_path / "x.safetensors")
    broken = rewritten(
        file, tmp_path / "nan.safetensors", lambda tensors: next(iter(tensors.values())).fill_(torch.nan)
    )
    write_lora(tmp_path / "none.safetensors", {"conv_in.weight": draw(2, 2)}, {})
    for path, said in (
        (broken, "are not finite"),
        (tmp_path / "none.safetensors", "holds no LoRA"),
        (tmp_path / "x.pt", "not a .safetensors file"),
        (tmp_path / "nowhere.safetensors", "There is no file"),
    ):
        with pytest.raises(CrucibleError, match=said):
            start_of(base_model, path)


@pytest.mark.parametrize(
    ("method", "values", "said"),
    [
        ("lora", {"algorithm": "lokr"}, "algorithm is lokr, but .* is LoRA"),
        ("lokr", {"algorithm": "dora"}, "algorithm is dora, but .* is LoKr"),
        ("lokr", {"lora_rank": 8}, "a LoKr cannot be resized"),
        ("loha", {"lora_alpha": 1.0}, "a LoHa cannot be resized"),
        ("loha", {"lora_dropout": 0.1}, "is a LoHa: lora_dropout"),
    ],
)
def test_settings_that_contradict_the_file(base_model, tmp_path, method, values, said):
    file = written(base_model, tmp_path / "x.safetensors", method, rank=3)
    config = parse_config({"continue_from": str(file), **values})
    with pytest.raises(CrucibleError, match=said):
        load_initial_lora(config, base_model).settings(config)


def test_what_has_no_effect_is_said(base_model, tmp_path):
    lora = start_of(
        base_model, written(base_model, tmp_path / "x.safetensors"), target_modules="linear", train_text_encoder=True
    )
    notes = " ".join(lora.notes)
    assert "target_modules: no effect" in notes
    assert "no layers for the text encoder, so the text encoder starts from zero" in notes
