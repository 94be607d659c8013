"""Losses of predicted tokens without the matrix of all logits.

The logits of a batch, one number per token and word of the vocabulary, are often larger than everything else in a
training step: 1,000 tokens and 150,000 words take 600 MB in float32, and several times that in backward. Here they are
computed a chunk at a time, for trained tokens only, and each chunk's gradient is taken at once: the loss of a token
depends only on its own hidden state, so its gradient is stored instead of its logits, and backward only scales it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 2**24
"""The most logits that are computed together, 64 MB in float32."""

UNDERFLOW = 1024.0
"""The factor on probabilities in float16, where those of a large vocabulary would underflow."""

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
"""A function that returns the contexts of a forward and of its recomputation, as `torch.utils.checkpoint` asks for."""


@dataclass(frozen=True)
class Head:
    """The last layer of a language model, which turns hidden states into logits.

    The logits are soft_cap * tanh(scale * (W h + b) / soft_cap), or scale * (W h + b) without a soft cap.

    Attributes:
        weight: the frozen weight W (vocabulary, width).
        bias: the frozen bias b (vocabulary,); None for most models.
        soft_cap: the bound of logits in Gemma; 0 for none.
        scale: a factor on the logits.
        layer: a function that computes W h + b with gradients, for a head that has an adapter of its own; None for
            a frozen head.
    """

    weight: Tensor
    bias: Tensor | None = None
    soft_cap: float = 0.0
    scale: float = 1.0
    layer: Callable[[Tensor], Tensor] | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute the logits (tokens, vocabulary) in float32 of hidden states (tokens, width)."""
        if self.layer is not None:
            raw = self.layer(hidden).float() * self.scale
            return self.soft_cap * torch.tanh(raw / self.soft_cap) if self.soft_cap else raw
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.weight.device, self.weight.dtype)
            raw = F.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1:
            raw = raw * self.scale
        return torch.tanh(raw / self.soft_cap) * self.soft_cap if self.soft_cap else raw

    def chunks(self, tokens: int) -> Iterator[slice]:
        """Yield the ranges of tokens whose logits are computed together."""
        step = max(1, CHUNK // len(self.weight))
        for start in range(0, tokens, step):
            yield slice(start, min(start + step, tokens))


def token_losses(hidden: Tensor, targets: Tensor, head: Head, contexts: Contexts | None = None) -> Tensor:
    """Compute the cross-entropy of each token.

    Args:
        hidden: the hidden states (tokens, width) that the tokens are predicted from.
        targets: the token ids (tokens,).
        head: the last layer.
        contexts: the contexts in which a head with an adapter is computed and recomputed.

    Returns:
        The losses in nats (tokens,), float32.
    """
    if head.layer is not None:
        return _losses_of_adapted_head(hidden, targets, head, contexts)
    if torch.is_grad_enabled() and hidden.requires_grad:
        losses: Tensor = _TokenLosses.apply(hidden, targets, head)
        return losses
    return _losses(hidden, targets, head, None)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        gradient = torch.empty_like(hidden)
        losses = _losses(hidden, targets, head, gradient)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        (grad,) = grad_outputs
        return (gradient * grad.to(gradient.device).unsqueeze(1)).to(gradient.dtype), None, None


@torch.no_grad()
def _losses(hidden: Tensor, targets: Tensor, head: Head, gradient: Tensor | None) -> Tensor:
    """Compute the losses, and write the derivative of each by its hidden state to `gradient`."""
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for part in head.chunks(len(hidden)):
        logits, wanted = head.logits(hidden[part]), targets[part].to(head.weight.device).unsqueeze(1)
        slope = (1 - (logits / head.soft_cap) ** 2) if head.soft_cap and gradient is not None else None
        total = logits.logsumexp(1, keepdim=True)
        losses[part] = (total - logits.gather(1, wanted)).squeeze(1).to(losses.device)
        if gradient is None:
            continue
        errors = logits.sub_(total).exp_()
        errors.scatter_add_(1, wanted, errors.new_full(wanted.shape, -1.0))
        if slope is not None:
            errors *= slope
        factor = UNDERFLOW if head.weight.dtype is torch.float16 else 1.0
        if head.scale * factor != 1:
            errors *= head.scale * factor
        with torch.autocast(hidden.device.type, enabled=False):
            derivative = errors.to(head.weight.dtype) @ head.weight
        gradient[part] = (derivative.float() / factor).to(gradient) if factor != 1 else derivative.to(gradient)
    return losses


def _losses_of_adapted_head(hidden: Tensor, targets: Tensor, head: Head, contexts: Contexts | None) -> Tensor:
    """Compute the losses with gradients to the head's adapter too; each chunk's logits are computed again in
    backward."""

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(head.logits(hidden), targets, reduction="none")

    settings: dict[str, Any] = {} if contexts is None else {"context_fn": contexts}
    return torch.cat(
        [
            checkpoint(losses, hidden[part], targets[part], use_reentrant=False, **settings)
            if torch.is_grad_enabled()
            else losses(hidden[part], targets[part])
            for part in head.chunks(len(hidden))
        ]
    )


@torch.no_grad()
def divergences(
    base: Tensor,
    adapted: Tensor,
    head: Head,
    without_adapters: Callable[[], AbstractContextManager[None]],
) -> Tensor:
    """Compute KL(base || adapted) of the predictions of each token in nats.

    Args:
        base: the hidden states (tokens, width) of the base model.
        adapted: those of the model with adapters.
        head: the last layer.
        without_adapters: a function that returns a context in which the head, if it has an adapter, acts like the base
            model's.

    Returns:
        The divergences (tokens,), float32.
    """
    found = []
    for part in head.chunks(len(base)):
        if head.layer is None:
            before = head.logits(base[part])
        else:
            with without_adapters():
                before = head.logits(base[part])
        before, after = before.log_softmax(1), head.logits(adapted[part]).log_softmax(1)
        found.append(((before - after) * before.exp()).sum(1).clamp_min(0).to(base.device))
    return torch.cat(found)
