"""Tests of the chunked losses against torch's own."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from lora_crucible.models.language import loss
from lora_crucible.models.language.loss import Head, divergences, token_losses
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

TOKENS, WIDTH, WORDS = 23, 16, 301


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", 5 * WORDS)


def made(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(WORDS, WIDTH, generator=draw).to(dtype)
    return hidden, weight, torch.randint(0, WORDS, (TOKENS,), generator=draw)


HEADS = {
    "plain": {},
    "bias": {"bias": torch.linspace(-1, 1, WORDS)},
    "soft cap": {"soft_cap": 3.0},
    "scale": {"scale": 0.25},
    "all": {"bias": torch.linspace(-1, 1, WORDS), "soft_cap": 2.0, "scale": 0.5},
}


def plain_logits(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    raw = F.linear(hidden, head.weight, head.bias).float() * head.scale
    return head.soft_cap * torch.tanh(raw / head.soft_cap) if head.soft_cap else raw


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("adapted", [False, True])
def test_values_and_gradients_equal_cross_entropy(kind: str, adapted: bool) -> None:
    hidden, weight, targets = made()
    bias = HEADS[kind].get("bias")
    layer = (lambda states: F.linear(states, weight, bias)) if adapted else None
    head = Head(weight, layer=layer, **HEADS[kind])
    weights = torch.linspace(0.1, 2, TOKENS)
    ours = token_losses(hidden, targets, head)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), hidden)
    theirs = F.cross_entropy(plain_logits(hidden, head), targets, reduction="none")
    (expected,) = torch.autograd.grad((theirs * weights).sum(), hidden)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(token_losses(hidden, targets, head), theirs, atol=1e-5, rtol=1e-6)


def test_gradients_reach_the_adapter_of_a_head() -> None:
    hidden, weight, targets = made()
    weight.requires_grad_()
    ours = token_losses(hidden, targets, Head(weight, layer=lambda states: F.linear(states, weight)))
    (gradient,) = torch.autograd.grad(ours.sum(), weight, retain_graph=True)
    (expected,) = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets, reduction="sum"), weight)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_accumulates_in_float32(dtype: torch.dtype) -> None:
    hidden, weight, targets = made(dtype=dtype)
    ours = token_losses(hidden, targets, Head(weight))
    assert ours.dtype is torch.float32
    (gradient,) = torch.autograd.grad(ours.sum(), hidden)
    exact = hidden.detach().float().requires_grad_()
    theirs = F.cross_entropy(exact @ weight.float().T, targets, reduction="none")
    (expected,) = torch.autograd.grad(theirs.sum(), exact)
    torch.testing.assert_close(ours, theirs, atol=0.06, rtol=0.02)
    torch.testing.assert_close(gradient.float(), expected, atol=0.05, rtol=0.05)


def test_small_probabilities_of_a_large_vocabulary_are_kept_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probability of 1.2e-6 is 20.5 of float16's smallest steps, so that alone would be wrong by 2 %."""
    words = 818_400
    monkeypatch.setattr(loss, "CHUNK", words)
    hidden = torch.zeros(1, 1, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(words, 1, dtype=torch.float16)
    weight[: words // 2] = 1  # half of all words pull to one side
    (gradient,) = torch.autograd.grad(token_losses(hidden, torch.tensor([words - 1]), Head(weight)).sum(), hidden)
    assert gradient.item() == pytest.approx(0.5, abs=2e-3)


def test_losses_reach_float16_gradients_through_a_loss_scale() -> None:
    hidden, weight, targets = made(dtype=torch.float16)
    (plain,) = torch.autograd.grad(token_losses(hidden, targets, Head(weight)).sum(), hidden)
    (scaled,) = torch.autograd.grad(token_losses(hidden, targets, Head(weight)).sum() * 512, hidden)
    torch.testing.assert_close(scaled.float() / 512, plain.float(), atol=1e-3, rtol=1e-3)


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and not function.is_view:
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("adapted", [False, True])
def test_the_matrix_of_all_logits_is_never_there(adapted: bool) -> None:
    hidden, weight, targets = made()
    head = Head(weight, soft_cap=3.0, layer=(lambda states: F.linear(states, weight)) if adapted else None)
    with Largest() as largest:
        token_losses(hidden, targets, head).mean().backward()
        with torch.no_grad():
            divergences(hidden, hidden, head, nullcontext)
    assert largest.size <= 5 * WORDS
    with Largest() as plain:
        F.cross_entropy(hidden @ weight.T, targets).backward()
    assert plain.size == TOKENS * WORDS


def test_the_chunk_is_at_least_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = made()
    monkeypatch.setattr(loss, "CHUNK", 1)
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(token_losses(hidden, targets, Head(weight)), expected, atol=1e-5, rtol=1e-6)


def test_divergences() -> None:
    base, weight, _ = made()
    adapted = base.detach() + 0.3 * torch.randn(base.shape, generator=torch.Generator().manual_seed(4))
    before, after = ((states @ weight.T).log_softmax(1) for states in (base, adapted))
    expected = F.kl_div(after, before, log_target=True, reduction="none").sum(1)
    found = divergences(base, adapted, Head(weight), nullcontext)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)
    assert torch.equal(divergences(base, base, Head(weight), nullcontext), torch.zeros(TOKENS))
