"""Every architecture overfits a batch, and ComfyUI's loader makes of the file what was trained."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from unittest import mock

import comfy.sd
import models
import pytest
import torch
from lora_crucible.adapters import AdapterSpec
from lora_crucible.formats.lora_file import read_lora, to_state_dict, write_lora
from tiny_architectures import TINY

SPEC = AdapterSpec(8, 4.0, 0.0, "attention_and_feed_forward")
SEEDS, TIMESTEPS = [1, 2], [0.4, 0.8]


def predictions(base_model, model, samples):
    """What the model says to the fixed noise."""
    seen = []
    original = model.model.apply_model

    def apply_model(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1]

    with mock.patch.object(model.model, "apply_model", apply_model), torch.no_grad():
        base_model.losses(samples, SEEDS, TIMESTEPS)
    return torch.cat(seen)


@pytest.mark.parametrize("name", TINY)
def test_matrix(name, tmp_path: Path, caplog):
    start = time.time()
    tiny = TINY[name]
    model, samples = tiny.model(), tiny.samples(2)
    base_model = models.base_model(model)
    path = tmp_path / "lora.safetensors"
    with base_model.session("fp32"):
        before = predictions(base_model, model, samples)
        with base_model.attached(SPEC, True) as adapters:
            adapters.initialise(1)
            assert torch.equal(predictions(base_model, model, samples), before)
            optimizer = torch.optim.Adam(adapters.parameters(), lr=tiny.learning_rate)
            losses = []
            while len(losses) < 200 and (not losses or losses[-1] > losses[0] / 2):
                loss = base_model.losses(samples, SEEDS, TIMESTEPS).values.mean()
                optimizer.zero_grad()
                loss.backward()
                if not losses:
                    none = [p.shape for p in adapters.parameters() if p.grad is None]
                    if none:
                        print("NOGRAD", len(none), len(adapters.parameters()))
                optimizer.step()
                losses.append(loss.item())
            trained = predictions(base_model, model, samples)
            write_lora(path, base_model.portable(to_state_dict(adapters.layers(), torch.float32)), {})
            base_model.verify(path, len(adapters))
    print(name, len(adapters), len(losses), losses[0], losses[-1], round(time.time() - start, 2))
    print(list(read_lora(path)[0])[:4])
    tensors, _ = read_lora(path)
    with caplog.at_level(logging.WARNING):
        loaded, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert not caplog.records
    used = models.base_model(loaded)
    with used.session("fp32"):
        after = predictions(used, loaded, samples)
    print("diff", (after - trained).abs().max(), (trained - before).abs().max())
    assert losses[-1] < losses[0] / 2
