"""Dropout depends only on the row."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.adapters.dropout import RowDropout, RowSeeds
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.data.cache import TensorCache
from lora_crucible.seeding import derived_seed
from torch.utils.checkpoint import checkpoint

SEEDS = (11, 12, 13, 14)


@pytest.fixture
def rows():
    return RowSeeds()


def test_a_row_loses_the_same_entries_in_any_batch(rows):
    dropout = RowDropout(0.25, "layer", rows)
    x = torch.ones(4, 10, 100)
    with rows.used(SEEDS):
        whole = dropout(x)
    for size in (1, 2):
        for first in range(0, 4, size):
            with rows.used(SEEDS[first : first + size]):
                assert torch.equal(dropout(x[first : first + size]), whole[first : first + size])
    assert whole.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (whole == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    masks = [(row == 0).flatten() for row in whole]
    assert all((masks[0] != mask).float().mean() > 0.2 for mask in masks[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_entries_are_dropped_by_numbers_drawn_from_the_row_and_the_layer(rows, dtype):
    x = torch.randn(2, 10, 100).to(dtype)
    with rows.used(SEEDS[:2]):
        dropped = RowDropout(0.1, "layer", rows)(x)
    for row, seed, found in zip(x, SEEDS, dropped, strict=False):
        draw = torch.Generator().manual_seed(derived_seed(seed, "dropout", "layer"))
        kept = torch.rand(row.shape, generator=draw) >= 0.1
        assert torch.equal(found, row * kept.to(dtype).div_(1 - 0.1))


def test_layers_drop_different_entries(rows):
    x = torch.ones(1, 1000)
    with rows.used([1]):
        assert not torch.equal(RowDropout(0.5, "one", rows)(x), RowDropout(0.5, "other", rows)(x))


def test_parts_of_a_row_that_lie_side_by_side_belong_to_it(rows):
    dropout = RowDropout(0.5, "layer", rows)
    x = torch.ones(6, 50)
    with rows.used([1, 2]):
        both = dropout(x)
    with rows.used([2]):
        assert torch.equal(dropout(x[3:]), both[3:])


def test_rows_that_are_packed_into_one_are_told_apart(rows):
    dropout = RowDropout(0.5, "layer", rows)
    x = torch.ones(1, 6, 50)
    with rows.used([1, 2]):
        both = dropout(x)
    with rows.used([2]):
        assert torch.equal(dropout(x[:, 3:]), both[:, 3:])


def test_an_input_that_rows_share_gets_one_mask(rows):
    dropout = RowDropout(0.5, "layer", rows)
    with rows.used([1, 2]):
        shared = dropout(torch.ones(1, 50))
    with rows.used([1]):
        assert torch.equal(dropout(torch.ones(1, 50)), shared)


def test_it_does_nothing_outside_training(rows):
    x = torch.ones(2, 50)
    assert torch.equal(RowDropout(0.5, "layer", rows).eval()(x), x)


def test_without_dropout_may_be_used_inside_itself(base_model):
    with base_model.attached(AdapterSpec(1, 1.0, 0.5, "attention"), False) as adapters:
        layers = [layer.adapter for layer in adapters._layers.values()]
        before = [layer.training for layer in layers]
        with adapters.without_dropout():
            with adapters.without_dropout():
                pass
            assert not any(layer.training for layer in layers)
        assert [layer.training for layer in layers] == before


def test_recomputation_drops_what_forward_dropped(rows):
    """Backward runs when the seeds of the forward pass are no longer in use."""
    dropout = RowDropout(0.5, "layer", rows)
    weight = torch.ones(100, requires_grad=True)

    def block(x):
        return (dropout(x * weight) ** 2).sum()

    gradients = []
    for context_fn in (None, rows.checkpoint_contexts):
        weight.grad = None
        with rows.used([1, 2]):
            x = torch.ones(2, 100)
            loss = checkpoint(block, x, use_reentrant=False, context_fn=context_fn) if context_fn else block(x)
        with rows.used([3]):
            loss.backward()
        gradients.append(weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("algorithm", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_may_be_cut_in_any_way(base_model, dataset, algorithm, checkpointing):
    """One, two and four micro-batches give the same gradients, with the text encoder trained too."""
    spec = AdapterSpec(4, 4.0, 0.3, "attention_and_feed_forward", algorithm, text_encoder=True)
    samples = dataset.examples(64)[:4]
    gradients = {}
    with base_model.session("fp32"):
        cached = base_model.cache_inputs(samples, TensorCache(None), 0.0, False, lambda *_: None)
        with base_model.attached(spec, checkpointing) as adapters:
            adapters.initialise(1)
            with torch.no_grad():  # B is zero at the start, and so would be the gradients of A
                for parameter in adapters.parameters():
                    parameter.add_(0.02)
            for size in (4, 2, 1):
                for parameter in adapters.parameters():
                    parameter.grad = None
                for first in range(0, 4, size):
                    part = slice(first, first + size)
                    base_model.losses(cached[part], SEEDS[part]).values.sum().backward()
                gradients[size] = torch.cat([parameter.grad.flatten() for parameter in adapters.parameters()])
            with adapters.without_dropout():
                for parameter in adapters.parameters():
                    parameter.grad = None
                base_model.losses(cached, SEEDS).values.sum().backward()
                plain = torch.cat([parameter.grad.flatten() for parameter in adapters.parameters()])
    for size in (2, 1):
        assert (gradients[size] - gradients[4]).norm() < 1e-5 * gradients[4].norm()
    assert (plain - gradients[4]).norm() > 1e-2 * plain.norm()
