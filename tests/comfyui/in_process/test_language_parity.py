"""ComfyUI's language models compute the same losses and gradients as transformers' with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered
from lora_crucible.formats.layer_names import language_key
from lora_crucible.models.comfyui.language.model import ClipLanguageBaseModel
from tiny_language import STOP, TINY, VOCABULARY, Twin
from torch import Tensor
from torch.nn import functional as F

SPEC = AdapterSpec(rank=4, alpha=8.0, dropout=0.0, target_modules="linear")
LENGTHS = ((9, 3), (20, 12), (14, 1), (5, 4))
"""The tokens of each row, and of its prompt."""


@cache
def models(name: str) -> tuple[Any, Twin]:
    """Return a CLIP and its twin."""
    twin = TINY[name].make_twin()
    return TINY[name].clip(twin), twin


def rows() -> list[TextExample]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for index, (length, prompt) in enumerate(LENGTHS):
        tokens = torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
        trained = (False,) * prompt + (True,) * (length - prompt)
        made.append(TextExample(f"row {index}", Rendered((*tokens[:-1], STOP[-1]), trained), 64))
    return made


def cached(model: ClipLanguageBaseModel) -> list[Any]:
    return model.cache_inputs(rows(), TensorCache(None), 0.0, True, lambda *_: None)


def losses_of(twin: Twin) -> Tensor:
    """Return the mean loss of each row's trained tokens, computed together with padding and a mask."""
    longest = max(length for length, _ in LENGTHS)
    tokens, mask = torch.full((len(LENGTHS), longest), 7), torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    for index, row in enumerate(rows()):
        tokens[index, : len(row.rendered.tokens)] = torch.tensor(row.rendered.tokens)
        mask[index, : len(row.rendered.tokens)] = 1
    logits = twin(tokens, mask)
    found = []
    for index, (length, prompt) in enumerate(LENGTHS):
        found.append(F.cross_entropy(logits[index, prompt - 1 : length - 1], tokens[index, prompt:length]))
    return torch.stack(found)


@contextmanager
def trained_twin(twin: Twin, weights: Any) -> Iterator[Adapters]:
    modules = [(path, module) for path, module in twin.named_modules() if path.startswith("model.layers.")]
    with adapted(twin, SPEC, language_key, RowSeeds(), modules) as layers:
        adapters = Adapters(layers)
        adapters.load(weights)
        yield adapters


def gradients(adapters: Adapters) -> dict[tuple[str, str], Tensor]:
    found = {(key, part): parameter.grad.clone() for key, part, parameter in adapters.named_parameters()}
    for _, _, parameter in adapters.named_parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("name", TINY)
def test_logits(name: str):
    clip, twin = models(name)
    model = ClipLanguageBaseModel(clip)
    tokens = torch.randint(3, VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(1))
    with model.session("fp32"), torch.no_grad():
        hidden = model.hidden_states(tokens)
        with model.head() as head:
            found = head.logits(hidden.flatten(0, 1)).unflatten(0, tokens.shape)
        expected = twin(tokens)
    assert 0.3 < expected.std() < 5
    assert (found - expected).abs().max() < TINY[name].tolerance


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("name", TINY)
def test_losses_and_gradients(name: str, checkpointing: bool):
    clip, twin = models(name)
    model = ClipLanguageBaseModel(clip)
    assert all(weight.is_inference() for weight in clip.cond_stage_model.parameters())
    weights = {path: weight.clone() for path, weight in clip.cond_stage_model.state_dict().items()}
    with model.session("fp32"), model.attached(SPEC, checkpointing) as adapters:
        adapters.initialise(3)
        with torch.no_grad():
            for _, part, parameter in adapters.named_parameters():
                if part == "lora_B":
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        learned = adapters.layers()
        found = model.losses(cached(model), [0] * len(LENGTHS)).values
        found.sum().backward()
        of_clip = gradients(adapters)
        found = found.detach()
    with torch.enable_grad(), trained_twin(twin, learned) as adapters:
        expected = losses_of(twin)
        expected.sum().backward()
        of_twin = gradients(adapters)
    assert ((found - expected).abs() / expected).max() < TINY[name].tolerance / 10
    assert of_clip.keys() == of_twin.keys()
    assert len(of_clip) == 2 * len(model.paths)
    for key, gradient in of_twin.items():
        assert (of_clip[key] - gradient).abs().max() < 1e-5 * max(gradient.abs().max(), 1e-2), key
    now = clip.cond_stage_model.state_dict()
    assert all(torch.equal(now[path], weight) for path, weight in weights.items())
    assert not any("forward" in vars(module) for module in clip.cond_stage_model.modules())
