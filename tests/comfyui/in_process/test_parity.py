"""The ComfyUI and diffusers base models give the same results with the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import models
import pytest
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import parse_config
from lora_crucible.evaluation.validation import Validation
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.models.previews import Sampling
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.run import run_training

SPEC = AdapterSpec(4, 4.0, 0.0, "attention_and_feed_forward")


@pytest.fixture
def both(demo):
    return {"comfyui": ComfyUIBaseModel(*demo), "diffusers": DiffusersBaseModel("demo")}


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def losses_and_gradients(base_model, dataset, spec=SPEC):
    with base_model.session("fp32"):
        samples = models.encoded_samples(base_model, dataset)[:4]
        with base_model.attached(spec, False) as adapters:
            adapters.initialise(seed=1)
            with torch.no_grad():  # B is zero at the start, so A would have no gradients
                for parameter in adapters.parameters():
                    parameter.add_(0.02)
            losses = base_model.losses(samples, seeds=[11, 12, 13, 14]).values
            losses.sum().backward()
            latents = torch.stack([models.latent_of(sample) for sample in samples])
            return latents, losses.detach(), [parameter.grad for parameter in adapters.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_latents_losses_and_gradients(both, dataset, dropout):
    spec = replace(SPEC, dropout=dropout)
    latents, losses, gradients = losses_and_gradients(both["comfyui"], dataset, spec)
    other_latents, other_losses, other_gradients = losses_and_gradients(both["diffusers"], dataset, spec)
    assert relative_difference(latents, other_latents) < 1e-4
    assert relative_difference(losses, other_losses) < 1e-4
    assert len(gradients) == len(other_gradients)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        assert other.norm() > 0
        assert relative_difference(gradient, other) < 1e-4


def test_same_validation_errors(both, dataset):
    rounds = {}
    for name, base_model in both.items():
        with base_model.session("fp32"):
            samples = models.encoded_samples(base_model, dataset)[:4]
            with base_model.attached(replace(SPEC, dropout=0.5), False) as adapters:
                adapters.initialise(seed=1)
                with torch.no_grad():
                    for parameter in adapters.parameters():
                        parameter.add_(0.02)
                validation = Validation(base_model, samples[:2], samples[2:], batch_size=4, seed=0)
                with adapters.without_dropout():
                    rounds[name] = validation.measure(0, 0.0)
                    assert validation.measure(0, 0.0) == rounds[name]
    assert rounds["comfyui"].by_timestep == pytest.approx(rounds["diffusers"].by_timestep, rel=1e-4)
    assert rounds["comfyui"].training == pytest.approx(rounds["diffusers"].training, rel=1e-4)


def test_samples_are_those_of_their_prompts_and_seed(both):
    one = Sampling(("a red circle", "a blue square"), 64, 64, 1, 4, 4.0, "euler", "normal")
    swapped, other = replace(one, prompts=one.prompts[::-1]), replace(one, seed=2)
    for base_model in both.values():
        with base_model.session("fp32"):
            base_model.previewer.prepare([one, swapped, other])
            base_model.release_encoders()
            with base_model.attached(SPEC, False) as adapters:
                adapters.initialise(seed=1)
                pictures = base_model.previewer.draw(one)
                assert torch.equal(base_model.previewer.draw(swapped), pictures.flip(0))
                assert (base_model.previewer.draw(other) - pictures).abs().mean() > 0.01
                assert torch.equal(base_model.previewer.draw(one), pictures)


def test_ten_steps_give_the_same_lora(both, dataset, tmp_path: Path):
    config = parse_config(
        {
            "max_train_steps": 10,
            "batch_size": 4,
            "save_precision": "fp32",
            "sample_steps": 2,
            "sample_every_n_steps": 99,
        }
    )
    loras = {}
    for name, base_model in both.items():
        files = RunFiles.claim(name, tmp_path, tmp_path)
        run_training(base_model, plan_run(base_model, dataset, config), files)
        loras[name], _ = read_lora(files.lora)
    assert loras["comfyui"].keys() == loras["diffusers"].keys()
    for key, tensor in loras["comfyui"].items():
        assert relative_difference(tensor, loras["diffusers"][key]) < 1e-3, key
