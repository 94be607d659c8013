"""Running captioners under ComfyUI's model management."""

from __future__ import annotations

import comfy.model_management
import pytest
import tiny_captioners as tiny
import torch
from lora_crucible.captioners.options import CaptionStyle
from lora_crucible.captioners.registry import open_captioner
from lora_crucible.errors import CrucibleError
from lora_crucible.models.comfyui.captioning import captioner_session, is_out_of_memory

STYLE = CaptionStyle(max_length=4)
PICTURES = [tiny.picture(1), tiny.picture(2)]


@pytest.mark.parametrize("make", [tiny.florence, tiny.blip, tiny.idefics3, tiny.qwen])
def test_comfyui_loads_a_captioner_and_gets_its_memory_back(tmp_path, make):
    """The session runs in inference mode, as nodes do."""
    captioner = open_captioner(make(tmp_path / "model"))
    captioner.load(torch.float32)
    expected = captioner.caption(PICTURES, STYLE)
    captioner.unload()
    before = len(comfy.model_management.current_loaded_models)
    with torch.inference_mode(), captioner_session(captioner) as free_memory:
        loaded = comfy.model_management.current_loaded_models[0].model.model
        assert loaded.model is captioner.module
        assert captioner.device == comfy.model_management.get_torch_device()
        free_memory()
        assert captioner.caption(PICTURES, STYLE) == expected
    del loaded
    comfy.model_management.cleanup_models()
    assert len(comfy.model_management.current_loaded_models) == before
    with pytest.raises(AssertionError):
        _ = captioner.module


def test_a_captioner_that_fails_gives_its_memory_back(tmp_path):
    captioner = open_captioner(tiny.blip(tmp_path / "model"))
    before = len(comfy.model_management.current_loaded_models)
    with pytest.raises(KeyboardInterrupt), captioner_session(captioner):
        raise KeyboardInterrupt
    assert len(comfy.model_management.current_loaded_models) == before


def test_a_captioner_that_does_not_fit_is_named_with_its_size(tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    captioner = open_captioner(tiny.blip(tmp_path / "my blip"))
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", full)
    with pytest.raises(CrucibleError, match=r"my blip needs 0\.0 GB.*smaller captioner"), captioner_session(captioner):
        pass


def test_other_models_make_room_and_come_back(tmp_path, demo):
    model, *_ = demo
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        captioner = open_captioner(tiny.blip(tmp_path / "model"))
        with captioner_session(captioner) as free_memory:
            free_memory()
            names = [loaded.model for loaded in comfy.model_management.current_loaded_models]
            assert model not in names
        comfy.model_management.load_models_gpu([model])


def test_what_is_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(ValueError("other"))
