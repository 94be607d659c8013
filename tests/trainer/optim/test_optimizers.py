"""Each optimizer takes the same steps as when it is used directly from its library."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.optim.optimizers import ParameterGroup, effective_learning_rates, make_optimizer
from torch import nn

STEPS = 40
"""The number of steps, of which Prodigy needs some to find its learning rate."""

DECAY = 0.02


def adamw(groups):
    return torch.optim.AdamW(groups, betas=(0.9, 0.999))


def adafactor(groups):
    from transformers.optimization import Adafactor

    return Adafactor(groups, relative_step=False, scale_parameter=False, warmup_init=False)


def lion(groups):
    return pytest.importorskip("lion_pytorch").Lion(groups, betas=(0.9, 0.99))


def prodigy(groups):
    return pytest.importorskip("prodigyopt").Prodigy(groups, use_bias_correction=True, safeguard_warmup=True)


def schedule_free_adamw(groups):
    optimizer = pytest.importorskip("schedulefree").AdamWScheduleFree(groups, warmup_steps=3)
    optimizer.train()
    return optimizer


def weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in [(4, 8), (8, 4), (2, 3)]]


def take_steps(optimizer, parameters) -> None:
    draw = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        for weight in parameters:
            weight.grad = 3 + torch.randn(weight.shape, generator=draw)
        optimizer.step()


@pytest.mark.parametrize("reference", [adamw, adafactor, lion, prodigy, schedule_free_adamw])
def test_steps_are_those_of_the_library(reference, complete):
    name = reference.__name__
    rates = (1.0, 1.0) if name == "prodigy" else (0.01, 0.002)
    expected = weights()
    library = reference(
        [
            {"params": expected[:2], "lr": rates[0], "weight_decay": DECAY},
            {"params": expected[2:], "lr": rates[1], "weight_decay": DECAY},
        ]
    )
    take_steps(library, expected)

    config = complete(optimizer=name, weight_decay=DECAY, max_train_steps=30)
    assert config.lr_warmup_steps == 3
    ours = weights()
    groups = [ParameterGroup("model", ours[:2], rates[0]), ParameterGroup("text_encoder", ours[2:], rates[1])]
    optimizer = make_optimizer(groups, config)
    if name == "schedule_free_adamw":
        optimizer.train()
    take_steps(optimizer, ours)
    for weight, other, start in zip(ours, expected, weights(), strict=True):
        assert torch.allclose(weight, other, atol=1e-6)
        assert not torch.allclose(weight, start, atol=1e-5)


@pytest.mark.parametrize(("name", "betas"), [("adamw", (0.8, 0.95)), ("lion", (0.8, 0.95))])
def test_betas_reach_the_optimizer(name, betas, complete):
    pytest.importorskip({"lion": "lion_pytorch"}.get(name, "torch"))
    config = complete(optimizer=name, adam_beta1=betas[0], adam_beta2=betas[1])
    optimizer = make_optimizer([ParameterGroup("model", weights(), 0.1)], config)
    assert optimizer.param_groups[0]["betas"] == betas


def test_learning_rates_go_by_the_name_of_the_part(complete):
    parts = weights()
    groups = [ParameterGroup("model", parts[:2], 1e-3), ParameterGroup("text_encoder", parts[2:], 5e-5)]
    optimizer = make_optimizer(groups, complete())
    assert effective_learning_rates(optimizer) == {"model": 1e-3, "text_encoder": 5e-5}


def test_prodigy_shows_the_rate_that_it_found(complete):
    pytest.importorskip("prodigyopt")
    parts = weights()
    optimizer = make_optimizer([ParameterGroup("model", parts, 1.0)], complete(optimizer="prodigy"))
    assert effective_learning_rates(optimizer)["model"] == pytest.approx(1e-6)  # the initial estimate
    take_steps(optimizer, parts)
    assert effective_learning_rates(optimizer)["model"] > 1e-5


def test_prodigy_refuses_parts_with_rates_of_their_own(complete):
    parts = weights()
    groups = [ParameterGroup("model", parts[:2], 1.0), ParameterGroup("text_encoder", parts[2:], 0.5)]
    config = complete(optimizer="prodigy")
    with pytest.raises(CrucibleError, match=r"model 1, text_encoder 0\.5.*choose another optimizer"):
        make_optimizer(groups, config)


def test_8_bit_adamw_refuses_a_cpu(complete):
    config = complete().model_copy(update={"optimizer": "adamw_8bit"})
    with pytest.raises(CrucibleError, match=r"runs on cpu.*Set optimizer to adamw"):
        make_optimizer([ParameterGroup("model", weights(), 1e-3)], config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="8-bit AdamW only works on CUDA")
def test_8_bit_adamw_follows_adamw(complete):
    pytest.importorskip("bitsandbytes")
    draw = torch.Generator().manual_seed(1)
    start, gradient = torch.randn(128, 128, generator=draw), torch.randn(128, 128, generator=draw)
    moved = {}
    for name in ("adamw", "adamw_8bit"):
        weight = nn.Parameter(start.cuda())
        optimizer = make_optimizer([ParameterGroup("model", [weight], 1e-3)], complete(optimizer=name))
        for _ in range(5):
            weight.grad = gradient.cuda()
            optimizer.step()
        moved[name] = weight.detach().cpu() - start
    assert type(optimizer).__name__ == "AdamW8bit"
    assert torch.allclose(moved["adamw"], moved["adamw_8bit"], atol=2e-4)
