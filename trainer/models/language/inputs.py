"""The inputs of language models: tokens, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.text.examples import TextExample
from ...errors import CrucibleError
from ..examples import CachedExample, Progress


@dataclass(frozen=True)
class TextInputs:
    """The tokens of one example.

    Attributes:
        tokens: the token ids (length,), int32 on the CPU.
        trained: for each token, whether predicting it is trained (length,), bool on the CPU. The first never is,
            because nothing comes before it to predict it from.
    """

    tokens: Tensor
    trained: Tensor

    @property
    def count(self) -> int:
        """The number of trained tokens."""
        return int(self.trained.sum())


@dataclass(frozen=True)
class TextBatch:
    """Examples of a batch, padded at the end to the same length.

    Attributes:
        tokens: the token ids that the model reads (rows, length). After the last trained token nothing is read.
        places: the places of the hidden states that trained tokens are predicted from, as an index into rows times
            length, (trained tokens,), row after row.
        targets: the trained tokens (trained tokens,), in the same order.
        counts: the number of trained tokens of each row.
    """

    tokens: Tensor
    places: Tensor
    targets: Tensor
    counts: tuple[int, ...]


def cached_examples(
    examples: Sequence[TextExample], vocabulary: int, progress: Progress
) -> list[CachedExample[TextInputs]]:
    """Turn examples into the inputs of a language model.

    Args:
        examples: the examples of an epoch.
        vocabulary: the number of tokens that the model has embeddings for.
        progress: a function called with (done, total, what is being done).

    Returns:
        The examples in the same order. An example that occurs several times stays one object.

    Raises:
        CrucibleError: nothing of an example is trained, or the model does not know one of its tokens.
    """
    made: dict[int, CachedExample[TextInputs]] = {}
    for example in examples:
        if id(example) not in made:
            made[id(example)] = _cached(example, vocabulary)
    progress(len(examples), len(examples), "reading tokens")
    return [made[id(example)] for example in examples]


def _cached(example: TextExample, vocabulary: int) -> CachedExample[TextInputs]:
    tokens = torch.tensor(example.rendered.tokens, dtype=torch.int32)
    trained = torch.tensor(example.rendered.trained, dtype=torch.bool)
    trained[:1] = False
    inputs = TextInputs(tokens, trained)
    if not inputs.count:
        raise CrucibleError(
            f"None of the {len(tokens):,} tokens of {example.name} is trained, so its loss would be 0 / 0. It has no "
            "answer, or the answer was cut away. Remove the row, shorten its prompt, or raise max_seq_length."
        )
    highest = int(tokens.max())
    if highest >= vocabulary:
        raise CrucibleError(
            f"{example.name} has token {highest:,}, but the model only has embeddings for {vocabulary:,}. Its "
            "tokenizer is of another version than its weights, so the model would not know what it reads. Copy the "
            "tokenizer's files from the place that the weights came from."
        )
    return CachedExample(example.name, example.group, inputs, len(tokens), inputs.count * example.weight)


def collated(rows: Sequence[TextInputs], device: torch.device) -> TextBatch:
    """Put examples into a batch.

    Padding comes after a row's tokens, where no token of a causal model sees it, so no attention mask is needed. It is
    known by the rows' lengths, so the id that stands there may occur in rows as well.
    """
    last = [int(row.trained.nonzero()[-1]) for row in rows]
    length = max(last)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    places, targets = [], []
    for index, (row, end) in enumerate(zip(rows, last, strict=True)):
        tokens[index, :end] = row.tokens[:end]
        trained = row.trained.nonzero().squeeze(1)
        places.append(trained - 1 + index * length)
        targets.append(row.tokens[trained])
    return TextBatch(
        tokens.to(device),
        torch.cat(places).to(device),
        torch.cat(targets).long().to(device),
        tuple(map(len, targets)),
    )
