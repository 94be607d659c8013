"""Answers that a model of transformers writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...data.text.rendering import Renderer
from ...seeding import generator
from ..language.model import Answer

TOGETHER = 16
"""The most answers that are written at the same time."""


def stop_tokens(model: Any, renderer: Renderer) -> tuple[int, ...]:
    """Return the ids of the tokens that end an answer: the template's and those of the model's own settings."""
    settings = getattr(model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    own: Iterable[int] = ends if isinstance(ends, list | tuple) else () if ends is None else (ends,)
    return tuple(dict.fromkeys((renderer.stop_token, *own)))


@torch.no_grad()
def generate(
    model: Any,
    renderer: Renderer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    seed: int | None,
    device: torch.device,
    check_interrupt: Callable[[], None],
) -> list[Answer]:
    """Write an answer to each prompt. Each is the same in whatever batch it is written, up to rounding.

    Args:
        model: a causal language model of transformers.
        renderer: its renderer.
        prompts: the tokens of each prompt.
        max_new_tokens: the most tokens of an answer.
        seed: the seed of sampling at temperature 1; None takes the likeliest token each time.
        device: the device that the model reads tokens on.
        check_interrupt: a function called before each token; it may raise to stop.
    """
    from transformers import GenerationConfig

    ends = stop_tokens(model, renderer)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(ends), pad_token_id=ends[0], use_cache=True
    )
    # A model's own settings would penalize repetitions or limit lengths, which is not what is trained.
    own, model.generation_config = model.generation_config, settings
    answers: list[Answer] = []
    try:
        for start in range(0, len(prompts), TOGETHER):
            tokens, mask = _padded(prompts[start : start + TOGETHER], ends[0], device)
            written = model.generate(
                tokens,
                attention_mask=mask,
                generation_config=settings,
                logits_processor=[_EachToken(seed, check_interrupt)],
            )
            answers += [_answer(row, ends, renderer) for row in written[:, tokens.shape[1] :].tolist()]
    finally:
        model.generation_config = own
    return answers


def _padded(prompts: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens and attention mask (rows, length) with padding at the start, so that all prompts end together."""
    length = max(map(len, prompts))
    tokens = torch.tensor([[padding] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return tokens, mask


def _answer(tokens: Sequence[int], ends: Sequence[int], renderer: Renderer) -> Answer:
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    kept = tuple(tokens[:end])
    return Answer(renderer.decode(kept), kept, end is not None)


class _EachToken:
    """Checks for interrupts before each token, and samples by adding Gumbel noise to the logits.

    The likeliest token after that is a sample at temperature 1. The noise of a place depends only on the seed, so an
    answer does not depend on the prompts beside it.
    """

    def __init__(self, seed: int | None, check_interrupt: Callable[[], None]) -> None:
        self._draw = None if seed is None else generator(seed, "answer")
        self._check_interrupt = check_interrupt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._check_interrupt()
        if self._draw is None:
            return scores
        noise = torch.empty(scores.shape[1]).exponential_(generator=self._draw).log_()
        return scores.float() - noise.to(scores.device)
