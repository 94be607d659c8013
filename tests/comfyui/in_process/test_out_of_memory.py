"""Running out of memory while training a ComfyUI model."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.comfyui import memory
from lora_crucible.models.comfyui.loading import OFFLOADING_STEPS
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.result import RunResult
from lora_crucible.training.run import run_training
from out_of_memory import Faults, lack_of_memory

SETTINGS = {
    "max_train_steps": 3,
    "batch_size": 1,
    "gradient_accumulation_steps": 2,
    "sample_steps": 1,
    "sample_prompts": "crux",
    "sample_every_n_steps": 99,
    "measure": "never",
    "mixed_precision": "fp32",
    "save_precision": "fp32",
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
}


def train(base_model, dataset, folder, **settings) -> RunResult:
    with torch.inference_mode():  # as a node runs
        files = RunFiles.claim("lora", folder, folder)
        return run_training(base_model, plan_run(base_model, dataset, parse_config({**SETTINGS, **settings})), files)


def distance(one: RunResult, other: RunResult) -> float:
    first, second = read_lora(one.files.lora)[0], read_lora(other.files.lora)[0]
    return max(float((first[key] - second[key]).abs().max()) for key in first)


@pytest.fixture
def base_model(demo):
    return ComfyUIBaseModel(*demo)


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
def test_a_step_is_done_again_and_the_model_is_left_as_it_was(demo, base_model, dataset, tmp_path, monkeypatch, phase):
    model, _, _ = demo
    expected = train(base_model, dataset, tmp_path)
    weights = {name: (weight, weight.clone()) for name, weight in model.model.named_parameters()}
    identity = base_model.identity()
    faults = Faults(base_model, monkeypatch)
    faults.at_step(phase, 2, row=1)
    result = train(base_model, dataset, tmp_path)
    assert faults.happened == [phase]
    assert "Step 2 ran out of memory" in result.report
    assert "continued with gradient checkpointing" in result.report
    # Recomputed blocks add up their results in a different order.
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)
    assert distance(result, expected) < 1e-5
    assert base_model.identity() == identity
    assert not any("forward" in module.__dict__ for module in model.model.modules())
    for name, weight in model.model.named_parameters():
        found, value = weights[name]
        assert weight is found
        assert torch.equal(weight, value)
    assert comfy.model_management.in_training is False
    assert torch.equal(train(base_model, dataset, tmp_path).samples[-1], expected.samples[-1])


def test_a_micro_batch_is_halved(base_model, dataset, tmp_path, monkeypatch):
    expected = train(base_model, dataset, tmp_path, batch_size=2)
    faults = Faults(base_model, monkeypatch)
    faults.at_step("backward", 2)
    result = train(base_model, dataset, tmp_path, batch_size=2)
    assert faults.passes[-4:] == [1] * 4
    assert distance(result, expected) < 1e-5


def test_loading_the_model_may_run_out_too(base_model, dataset, tmp_path, monkeypatch):
    expected = train(base_model, dataset, tmp_path)
    load, calls = comfy.model_management.load_models_gpu, []

    def load_later(models, **kwargs):
        if any(model.model is base_model._model.model for model in models):
            calls.append(models)
            if len(calls) == 1:
                raise lack_of_memory()
        return load(models, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load_later)
    assert distance(train(base_model, dataset, tmp_path), expected) < 1e-5
    assert len(calls) > 1


@pytest.fixture
def requests(monkeypatch):
    """The bytes that ComfyUI is asked to keep free, for each time a model is loaded for training."""
    asked = []
    load = comfy.model_management.load_models_gpu

    def noted(models, memory_required=0, **kwargs):
        if not torch.is_inference_mode_enabled() or memory_required > 1e12:
            return load(models, memory_required=memory_required, **kwargs)
        asked.append(memory_required)
        return load(models, memory_required=memory_required, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", noted)
    return asked


def test_more_and_more_of_the_model_is_offloaded(base_model, dataset, monkeypatch, requests):
    """The test runs on a CPU, so it pretends that the device supports offloading."""
    assert not base_model.memory.offload_more()
    monkeypatch.setattr(memory, "can_be_offloaded", lambda patcher: True)
    size, _ = base_model.memory.weights_size()
    assert size == sum(weight.nbytes for weight in base_model._model.model.state_dict().values())
    with base_model.session("fp32"):
        base_model.memory.make_room(1_000_000, None)
        for number in range(1, OFFLOADING_STEPS + 1):
            assert base_model.memory.offload_more()
            base_model._loaded.options((1, 4, 8, 8))
            assert requests[-1] == 1_000_000 + number * -(-size // OFFLOADING_STEPS)
        assert not base_model.memory.offload_more()
    with base_model.session("fp32"):  # another run starts with the whole model on the device
        base_model.memory.make_room(1_000_000, None)
        base_model._loaded.options((1, 4, 8, 8))
        assert requests[-1] == 1_000_000


def test_room_is_made_by_what_was_measured(base_model, dataset, tmp_path, requests, monkeypatch):
    rooms = []
    make_room = base_model.memory.make_room
    monkeypatch.setattr(base_model.memory, "make_room", lambda *values: (rooms.append(values), make_room(*values)))
    train(base_model, dataset, tmp_path)
    (none, _), (measured, _) = rooms
    assert none is None
    assert measured > 0
    assert measured in requests


def test_a_limit_leaves_the_rest_of_the_device_free(base_model, requests, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: 10_000_000_000)
    with base_model.session("fp32"):
        base_model.memory.make_room(1_000_000_000, 6_000_000_000)
        base_model._loaded.options((1, 4, 8, 8))
    assert requests[-1] == 1_000_000_000 + 4_000_000_000


def test_only_partly_loaded_models_can_be_offloaded_further(monkeypatch):
    management = comfy.model_management

    class Patcher:
        load_device = torch.device("cuda", 0)
        dynamic = False

        def is_dynamic(self):
            return self.dynamic

    patcher = Patcher()
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
    assert memory.can_be_offloaded(patcher)
    monkeypatch.setattr(patcher, "dynamic", True, raising=False)
    assert not memory.can_be_offloaded(patcher)
    monkeypatch.setattr(patcher, "dynamic", False, raising=False)
    patcher.load_device = torch.device("cpu")
    assert not memory.can_be_offloaded(patcher)
    patcher.load_device = torch.device("cuda", 0)
    monkeypatch.setattr(management, "vram_state", management.VRAMState.HIGH_VRAM)
    assert not memory.can_be_offloaded(patcher)


def test_lack_of_memory_is_known_as_comfyui_knows_it(base_model):
    assert base_model.memory.is_out_of_memory(lack_of_memory())
    assert base_model.memory.is_out_of_memory(MemoryError())
    assert not base_model.memory.is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not base_model.memory.is_out_of_memory(ValueError("out of memory"))
