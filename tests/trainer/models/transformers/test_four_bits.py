"""Tests of QLoRA, in 4 bits on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.errors import CrucibleError
from lora_crucible.models.transformers import loading
from peft.utils.integrations import dequantize_module_weight
from random_models import ALL, ROWS, cached, open_model, save

pytest.importorskip("bitsandbytes")
SPEC = AdapterSpec(rank=4, alpha=8.0, dropout=0.1, target_modules="linear")


def trained(model, precision: str, algorithm: str = "lora") -> list[float]:
    """Return the losses of ten steps of AdamW."""
    spec = AdapterSpec(4, 8.0, 0.1 if algorithm == "lora" else 0.0, "linear", algorithm)
    with model.session(precision), model.attached(spec, True) as adapters:
        adapters.initialise(5)
        rows = cached(model, ROWS)
        optimizer = torch.optim.AdamW(adapters.parameters(), lr=5e-3)
        losses = []
        for step in range(10):
            optimizer.zero_grad()
            loss = model.losses(rows, [4 * step + row for row in range(4)]).values.mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses


@pytest.mark.parametrize("kind", ALL)
def test_ten_steps_equal_a_float_twin_on_the_dequantized_weights(tmp_path: Path, kind: str) -> None:
    twin(tmp_path, kind, "lora")


@pytest.mark.parametrize("algorithm", ["rslora", "dora", "loha", "lokr"])
def test_all_algorithms_equal_a_float_twin(tmp_path: Path, algorithm: str) -> None:
    twin(tmp_path, "Qwen3", algorithm)


def twin(tmp_path: Path, kind: str, algorithm: str) -> None:
    folder = save(tmp_path / "model", kind, hidden_size=64, intermediate_size=128)
    quantized, floats = open_model(folder, load_in_4bit=True), open_model(folder)
    with quantized.session("fp32"), floats.session("fp32"):
        by_path = dict(floats._model.named_modules())
        changed = 0
        for path, module in quantized._model.named_modules():
            if type(module).__name__ == "Linear4bit":
                state = module.weight.quant_state
                assert (state.quant_type, state.nested) == ("nf4", True)
                before = by_path[path].weight.detach().clone()
                by_path[path].weight.data.copy_(dequantize_module_weight(module))
                changed += not torch.equal(before, by_path[path].weight)
        assert changed == len(quantized.layer_shapes()) - ("lora_te_lm_head" in quantized.layer_shapes())
        found = trained(quantized, "fp32", algorithm)
        assert found == pytest.approx(trained(floats, "fp32", algorithm), abs=1e-6)
        assert found[-1] < found[0]


def test_bf16_stays_finite(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "Qwen3", hidden_size=64, intermediate_size=128)
    losses = trained(open_model(folder, load_in_4bit=True), "bf16")
    assert torch.tensor(losses).isfinite().all()
    assert losses[-1] < losses[0]


def test_4_bits_are_another_model_with_the_same_layers(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    quantized, floats = open_model(folder, load_in_4bit=True), open_model(folder)
    assert quantized.identity() != floats.identity()
    assert quantized.layer_shapes() == floats.layer_shapes()
    assert quantized.facts == floats.facts


def test_weights_take_less_memory(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", hidden_size=64, intermediate_size=512)
    sizes = []
    for model in (open_model(folder, load_in_4bit=True), open_model(folder)):
        with model.session("fp32"):
            sizes.append(model.memory.weights_size()[0])
    assert sizes[0] < 0.3 * sizes[1]


def test_without_bitsandbytes_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(CrucibleError, match=r"load_in_4bit is on, but .*bitsandbytes") as error:
        open_model(save(tmp_path / "model"), load_in_4bit=True)
    assert f'"{sys.executable}" -m pip install bitsandbytes' in str(error.value)
