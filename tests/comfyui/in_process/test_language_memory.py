"""The language model of a CLIP that does not fit the device trains the same, and so does one that takes less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered
from lora_crucible.models.comfyui import memory
from lora_crucible.models.comfyui.language.model import ClipLanguageBaseModel
from tiny_language import TINY, VOCABULARY

SPEC = AdapterSpec(rank=4, alpha=8.0, dropout=0.0, target_modules="linear")


@pytest.fixture
def clip() -> Any:
    return TINY["gemma 3"].clip(TINY["gemma 3"].make_twin())


def gradients(model: ClipLanguageBaseModel, precision: str = "fp32", checkpointing: bool = False) -> torch.Tensor:
    tokens = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [TextExample(str(row), Rendered(tuple(row), (False,) * 3 + (True,) * 9), 16) for row in tokens]
    with torch.inference_mode(), model.session(precision), model.attached(SPEC, checkpointing) as adapters:
        adapters.initialise(1)
        with torch.no_grad():
            for parameter in adapters.parameters():
                parameter.add_(0.02)
        cached = model.cache_inputs(rows, TensorCache(None), 0.0, True, lambda *_: None)
        model.losses(cached, [0, 1]).values.sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in adapters.parameters()])


@pytest.mark.parametrize(("mode", "part"), [("NO_VRAM", 0.0), ("LOW_VRAM", 0.7)])
def test_a_model_that_is_not_or_partly_loaded_trains_the_same(
    clip: Any, scarce: Any, monkeypatch: pytest.MonkeyPatch, mode: str, part: float
) -> None:
    """Its head, too, is fetched for each batch, with the patches of a LoRA on the CLIP."""
    patched = clip.clone()
    weights = clip.cond_stage_model.state_dict()
    keys = [name for name in weights if name.endswith(("q_proj.weight", "embed_tokens.weight"))]
    draw = torch.Generator().manual_seed(1)
    changes = {name: torch.randn(weights[name].shape, generator=draw) * 0.05 for name in keys}
    patched.add_patches({name: ("diff", (change,)) for name, change in changes.items()})
    model = ClipLanguageBaseModel(patched)
    expected, identity = gradients(model), model.identity()
    assert not torch.allclose(gradients(ClipLanguageBaseModel(clip)), expected, rtol=0.1)

    size = patched.patcher.model_size()
    scarce(mode, int(size * part))
    monkeypatch.setattr(ClipLanguageBaseModel, "_guessed_room", lambda *_: 0)
    loaded = []
    load = memory.load

    def noted(patcher: Any, *values: Any) -> None:
        load(patcher, *values)
        loaded.append(patcher.loaded_size() / size)

    monkeypatch.setattr(memory, "load", noted)
    assert torch.allclose(gradients(model), expected, rtol=1e-4, atol=1e-6)
    assert len(loaded) == 1
    assert loaded[0] == 0 if mode == "NO_VRAM" else 0 < loaded[0] < 1
    assert model.identity() == identity
    assert not any(getattr(module, "weight_function", []) for module in clip.cond_stage_model.modules())


def test_bfloat16_is_close_to_float32(clip: Any) -> None:
    exact, rounded = (gradients(ClipLanguageBaseModel(clip), precision) for precision in ("fp32", "bf16"))
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.99
    assert not torch.equal(exact, rounded)
    checkpointed = gradients(ClipLanguageBaseModel(clip), "bf16", checkpointing=True)
    assert torch.allclose(rounded, checkpointed, rtol=1e-4, atol=1e-6)
