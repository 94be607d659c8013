"""For every algorithm, applying the saved file in ComfyUI reproduces the trained model."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import models
import pytest
import torch
from lora_crucible.adapters.peft_layers import peft_config
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config.layer_patterns import LayerPattern
from lora_crucible.formats.lora_file import read_lora, to_state_dict, write_lora
from lora_crucible.models.comfyui import adapted
from peft import inject_adapter_in_model
from torch import nn

ALGORITHMS = ["lora", "rslora", "dora", "loha", "lokr"]
SMALLEST_EFFECT = 1e-2


def spec(algorithm: str, target_modules: str = "linear_and_convolution", rank: int = 4) -> AdapterSpec:
    return AdapterSpec(rank, 2.0, 0.0, target_modules, algorithm)


def trained(base_model, samples, chosen: AdapterSpec, path: Path, steps: int = 6) -> tuple[list[float], torch.Tensor]:
    """Train for a few steps and save the LoRA; return the losses and the errors of the trained model."""
    with base_model.session("fp32"), base_model.attached(chosen, False) as adapters:
        adapters.initialise(1)
        optimizer = torch.optim.AdamW(adapters.parameters(), lr=3e-3)
        losses = []
        for _ in range(steps):
            loss = base_model.losses(samples, [1, 2]).values.mean()
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        adapters.round_to(torch.float16)
        write_lora(path, to_state_dict(adapters.layers(), torch.float16), {})
        base_model.verify(path, len(adapters))
        with torch.no_grad():
            return losses, base_model.losses(samples, [1, 2]).errors


def errors(model, samples) -> torch.Tensor:
    """Return the errors of a model without adapters."""
    base_model = models.base_model(model)
    with base_model.session("fp32"), torch.no_grad():
        return base_model.losses(samples, [1, 2]).errors


@pytest.fixture
def model():
    return models.sdxl()


@pytest.fixture
def samples(model):
    return models.random_samples(model, 2, channels=4, context=models.SDXL_CONTEXT, pooled=models.SDXL_POOLED)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_loaded_is_what_was_trained(model, samples, tmp_path: Path, algorithm: str):
    untouched = errors(model, samples)
    losses, expected = trained(models.base_model(model), samples, spec(algorithm), tmp_path / "x.safetensors")
    assert losses[0] == pytest.approx(untouched.mean().item(), rel=1e-5)  # no effect at step 0
    assert losses[-1] < losses[0]
    with torch.inference_mode():
        tensors, _ = read_lora(tmp_path / "x.safetensors")
        applied, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    found = errors(applied, samples)
    assert torch.allclose(found, expected, rtol=1e-3)
    assert ((found - untouched).abs() / untouched).max() > SMALLEST_EFFECT
    assert torch.equal(errors(model, samples), untouched)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_file(model, samples, tmp_path: Path, algorithm: str):
    for name in ("a", "b"):
        trained(models.base_model(model), samples, spec(algorithm, "attention"), tmp_path / f"{name}.safetensors", 2)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_dora_computes_what_peft_computes():
    """Compared on layers with bias and with their real weight, which peft's own forward needs."""
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(12, 8), torch.randn(2, 5, 12)),
        (nn.Conv2d(6, 8, 3, stride=2, padding=1), torch.randn(2, 6, 9, 9)),
    ):
        layer.requires_grad_(False)
        tree = nn.ModuleDict({"layer": layer})
        inject_adapter_in_model(peft_config(spec("dora"), {"layer": LayerPattern("layer")}), tree)
        adapter = tree["layer"]
        for name, parameter in adapter.named_parameters():
            if not name.startswith("base_layer"):
                parameter.data += 0.3 * torch.randn(parameter.shape)
        ours = adapted.adapted(layer, layer.forward, adapter, torch.float32)
        results = []
        for forward in (adapter, ours):
            x_in = x.clone().requires_grad_()
            output = forward(x_in)
            adapter.zero_grad()
            (output**2).sum().backward()
            gradients = [p.grad for name, p in adapter.named_parameters() if not name.startswith("base_layer")]
            results.append([output, x_in.grad, *gradients])
        assert len(results[0]) == 5
        for expected, found in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_in_half_precision_step_0_is_the_base(model, samples, algorithm: str):
    base_model = models.base_model(model)
    with base_model.session("bf16"):
        with torch.no_grad():
            expected = base_model.losses(samples, [1, 2]).errors
        with base_model.attached(spec(algorithm), False) as adapters:
            adapters.initialise(1)
            losses = base_model.losses(samples, [1, 2])
            assert torch.equal(losses.errors, expected)
            losses.values.sum().backward()
            assert all(parameter.grad is not None for parameter in adapters.parameters())
            assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}


def test_ranks_and_alphas_by_name(model, samples, tmp_path: Path):
    patterns = (LayerPattern("attn2.to_k", rank=2, alpha=1.0), LayerPattern("middle_block.*", rank=3))
    chosen = AdapterSpec(8, 4.0, 0.0, "attention", "lora", patterns)
    _, expected = trained(models.base_model(model), samples, chosen, tmp_path / "x.safetensors")
    tensors, _ = read_lora(tmp_path / "x.safetensors")
    ranks = {key: len(tensor) for key, tensor in tensors.items() if key.endswith("lora_down.weight")}
    assert {rank for key, rank in ranks.items() if "attn2_to_k" in key} == {2}
    assert {rank for key, rank in ranks.items() if "attn2_to_k" not in key} == {3}
    assert all("middle_block" in key or "attn2_to_k" in key for key in ranks)
    assert {tensors[key.replace("lora_down.weight", "alpha")].item() for key, rank in ranks.items() if rank == 3} == {4}
    applied, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert torch.allclose(errors(applied, samples), expected, rtol=1e-3)
