"""Drawing samples during training does not leak memory."""

from __future__ import annotations

import gc

import pytest
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.data.cache import TensorCache
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.models.previews import Sampling

SAMPLING = Sampling(("crux, a red circle", "a blue square"), 64, 64, 1, 3, 4.0, "dpmpp_2m", "karras", "blurred")


def live_tensors() -> tuple[int, int]:
    """Return the number of live tensors and the bytes that they hold."""
    gc.collect()
    storages = [one.untyped_storage() for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return len(storages), sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("text_encoder", [False, True])
def test_samples_in_the_middle_of_a_run_leave_nothing_behind(demo, dataset, text_encoder):
    base_model = ComfyUIBaseModel(*demo)
    spec = AdapterSpec(4, 4.0, 0.0, "attention", text_encoder=text_encoder)
    with base_model.session("fp32"):
        made = dataset.examples(64)[:2]
        samples = base_model.cache_inputs(made, TensorCache(None), 0.0, not text_encoder, lambda *_: None)
        base_model.previewer.prepare([SAMPLING])
        base_model.release_encoders()
        with base_model.attached(spec, False) as adapters:
            adapters.initialise(1)
            optimizer = torch.optim.AdamW(adapters.parameters())

            def step() -> None:
                base_model.losses(samples, [1, 2]).values.mean().backward()
                optimizer.step()
                optimizer.zero_grad()

            step()
            before = live_tensors()
            for _ in range(3):
                assert base_model.previewer.draw(SAMPLING).shape == (2, 64, 64, 3)
                step()
            assert live_tensors() == before
