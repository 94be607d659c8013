"""Tests of the inputs of language models."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered
from lora_crucible.models.language.inputs import cached_examples, collated

CPU = torch.device("cpu")


def example(tokens: list[int], trained: str, weight: float = 1.0) -> TextExample:
    return TextExample("row", Rendered(tuple(tokens), tuple(mark == "x" for mark in trained)), 16, weight)


def cached(*examples: TextExample):
    return cached_examples(examples, 100, lambda *_: None)


def test_weight_size_and_group() -> None:
    first, again, second = cached(one := example([5, 6, 7, 1], "..xx"), one, example([5, 6], ".x", 0.5))
    assert (first.weight, first.size, first.group) == (2.0, 4, 16)
    assert first is again
    assert second.weight == 0.5


def test_padding_is_by_length_and_never_by_id() -> None:
    """The padding's own id, 0, and the stop token, which is often also the padding, are trained like any other."""
    rows = cached(example([5, 0, 0, 1], "..xx"), example([5, 6, 7, 0, 1, 0, 1], "..xx.xx"))
    batch = collated([row.inputs for row in rows], CPU)
    assert batch.tokens.tolist() == [[5, 0, 0, 0, 0, 0], [5, 6, 7, 0, 1, 0]]
    assert batch.targets.tolist() == [0, 1, 7, 0, 0, 1]
    assert batch.places.tolist() == [1, 2, 6 + 1, 6 + 2, 6 + 4, 6 + 5]
    assert batch.counts == (2, 4)


def test_the_first_token_is_predicted_from_nothing() -> None:
    (row,) = cached(example([5, 6, 1], "xxx"))
    assert row.weight == 2
    assert collated([row.inputs], CPU).targets.tolist() == [6, 1]


@pytest.mark.parametrize("tokens", [1, 2])
def test_what_comes_after_the_last_trained_token_is_not_read(tokens: int) -> None:
    (row,) = cached(example([5, 6, 7] + [8] * tokens, ".x." + "." * tokens))
    assert collated([row.inputs], CPU).tokens.tolist() == [[5]]
