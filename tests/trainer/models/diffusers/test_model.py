"""Losses of tiny pipelines, and layers that are joined as in LoRA files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.errors import CrucibleError
from lora_crucible.models.diffusers.layers import joined
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.models.diffusion.inputs import Caption, Inputs, Latent
from lora_crucible.models.examples import CachedExample
from lora_crucible.models.previews import Sampling
from torch import nn

SPEC = AdapterSpec(2, 2.0, 0.2, "attention_and_feed_forward")
SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tiny_pipelines.saved(name, tmp_path_factory.mktemp("pipelines") / name)
        return made[name]

    return folder


def rows(shape: tuple[int, ...], pooled: bool, tokens: tuple[int, ...] = (8, 5, 8)) -> list[CachedExample]:
    """Return random examples, the second of which has a shorter caption."""
    found = []
    for index, length in enumerate(tokens):
        draw = torch.Generator().manual_seed(index)
        latent = torch.randn(shape, generator=draw)
        embedding = torch.randn(length, tiny_pipelines.TEXT, generator=draw)
        vector = torch.randn(tiny_pipelines.POOLED, generator=draw) if pooled else None
        inputs = Inputs((partial(Latent, latent),), (Caption("", partial(tuple, (embedding, vector))),))
        found.append(CachedExample(f"{index}.png", shape, inputs))
    return found


ROWS = {
    "flux1": partial(rows, (16, 8, 8), True),
    "qwen_image": partial(rows, (16, 1, 8, 8), False),
    "z_image": partial(rows, (16, 8, 8), False),
}


def randomise(adapters: Any) -> None:
    adapters.initialise(1)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.02)


def gradient(model: DiffusersBaseModel, examples: list[CachedExample], *, checkpointing: bool) -> torch.Tensor:
    with model.attached(SPEC, checkpointing) as adapters:
        randomise(adapters)
        model.losses(examples, SEEDS).values.sum().backward()
        # A last block's outputs for the caption are not used, so these have no gradient.
        found = [torch.zeros_like(one) if one.grad is None else one.grad for one in adapters.parameters()]
        return torch.cat([one.flatten() for one in found])


@pytest.mark.parametrize("name", ROWS)
def test_rows_depend_on_neither_batch_nor_checkpointing_and_leave_the_model_as_it_was(name: str, folders: Any) -> None:
    model, examples = DiffusersBaseModel(str(folders(name))), ROWS[name]()
    kinds = [(path, type(module)) for path, module in model._denoiser.named_modules()]
    weights = {key: weight.clone() for key, weight in model._denoiser.state_dict().items()}
    with model.session("fp32"):
        with model.attached(SPEC, False) as adapters:
            randomise(adapters)
            together = model.losses(examples, SEEDS).values
            apart = [model.losses([one], [seed]).values for one, seed in zip(examples, SEEDS, strict=True)]
        torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)
        plain = gradient(model, examples, checkpointing=False)
        torch.testing.assert_close(gradient(model, examples, checkpointing=True), plain, rtol=1e-4, atol=1e-6)
        assert plain.norm() > 0
    assert [(path, type(module)) for path, module in model._denoiser.named_modules()] == kinds
    assert all(torch.equal(weight, weights[key]) for key, weight in model._denoiser.state_dict().items())


def test_joined_layers_hold_no_weight_twice(folders: Any) -> None:
    model = DiffusersBaseModel(str(folders("flux1")))
    names = model._layers._names["single_blocks.0.linear1"]
    parts = [(name.removeprefix("transformer."), place) for name, place in names.diffusers]
    layers = [model._denoiser.get_submodule(path) for path, _ in parts]
    x = torch.randn(3, layers[0].in_features)
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    whole = joined(layers, [place for _, place in parts])
    torch.testing.assert_close(whole(x), expected)
    storages = {layer.weight.untyped_storage().data_ptr() for layer in [whole, *layers]}
    assert len(storages) == 1


def test_rows_in_another_order_are_put_right(folders: Any) -> None:
    """diffusers and the original code have scale and shift of the last layer in opposite order."""
    model = DiffusersBaseModel(str(folders("flux1")))
    names = model._layers._names["final_layer.adaLN_modulation.1"]
    (layer,) = [model._denoiser.get_submodule(name.removeprefix("transformer.")) for name, _ in names.diffusers]
    assert isinstance(layer, nn.Linear)
    x = torch.randn(2, layer.in_features)
    before = layer(x)
    spec = AdapterSpec(2, 2.0, 0.0, "linear")
    with model.session("fp32"), model.attached(spec, False) as adapters:
        adapters.initialise(1)
        place = model._denoiser.get_submodule("norm_out.linear")
        torch.testing.assert_close(place(x), before)
        whole = place.shared.layer.get_base_layer()
        torch.testing.assert_close(whole(x), torch.cat(before.chunk(2, dim=-1)[::-1], dim=-1))


@pytest.mark.parametrize("name", ["flux1", "qwen_image"])
def test_text_encoders_that_are_not_trained_are_refused_by_name(name: str, folders: Any) -> None:
    model = DiffusersBaseModel(str(folders(name)), weights=False)
    spec = AdapterSpec(2, 2.0, 0.0, "attention", text_encoder=True)
    refused = pytest.raises(CrucibleError, match=f"train_text_encoder is on, but {name} is a .*Turn train_text_encoder")
    with refused, model.attached(spec, False):
        pass


@pytest.mark.parametrize(
    ("name", "sampler", "scheduler", "known"),
    [
        ("flux1", "dpmpp_2m", "normal", "euler"),
        ("flux1", "euler", "sgm_uniform", "normal, simple, karras, exponential"),
        ("sd15", "uni_pc", "normal", "euler, dpmpp_2m, ddim"),
    ],
)
def test_samplers_that_diffusers_lacks_are_refused(
    name: str, sampler: str, scheduler: str, known: str, folders: Any
) -> None:
    model = DiffusersBaseModel(str(folders(name)), weights=False)
    with pytest.raises(CrucibleError, match=f"Choose one of these: {known}"):
        model.previewer.require(Sampling(("",), 64, 64, 1, 2, 1.0, sampler, scheduler))


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float32), ("bf16", torch.bfloat16)])
def test_samples_are_not_decoded_in_float16(precision: str, dtype: torch.dtype, folders: Any) -> None:
    model = DiffusersBaseModel(str(folders("sdxl")))
    found: list[torch.dtype] = []
    sampling = Sampling(("a cat",), 64, 64, 1, 1, 1.0, "euler", "normal")
    with model.session(precision):
        model.previewer.prepare([sampling])
        last = model._pipeline.vae.decoder.conv_out
        hook = last.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
        assert model.previewer.draw(sampling).isfinite().all()
        hook.remove()
    assert found == [dtype]


def test_an_image_that_cannot_be_cut_into_patches_names_the_setting(folders: Any) -> None:
    model = DiffusersBaseModel(str(folders("sd3")))
    encoders = model._as_encoders()
    assert encoders.latent(torch.rand(48, 64, 3), "x.png").shape == (16, 6, 8)
    with pytest.raises(CrucibleError, match=r"x\.png is trained at 64 x 56 pixels.*bucket_step to a multiple of 16"):
        encoders.latent(torch.rand(56, 64, 3), "x.png")
