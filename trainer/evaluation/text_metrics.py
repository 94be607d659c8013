"""Measurements of what a LoRA does to the texts of a language model, compared with the base model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch

from ..data.text.examples import TextExample
from ..data.text.rendering import Rendered, Renderer
from ..models.examples import CachedExample
from ..models.language.model import Answer, LanguageBaseModel

LEAST_CHARACTERS = 12
"""The least length of an answer that counts as a copy; shorter ones, such as "yes", are right for many prompts."""

TOKENS_APART = 4
"""The most tokens by which two answers differ that are the same but for case and spacing."""

LEAST_OF_A_TEXT = 40
"""The least length of a continuation that counts as a copy if it occurs within a training text."""

BEGINNING = 0.25
"""The share of a text, where texts are trained whole, that the model is given to continue."""


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that its row gives.

    Attributes:
        name: the name of the row.
        prompt: the tokens of the prompt, or of the beginning of a text that is trained whole.
        answer: the tokens of the answer, or of the rest of the text, without the stop token.
        is_text: whether the row is a text that is trained whole.
    """

    name: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    is_text: bool

    @classmethod
    def of(cls, example: TextExample, stop_token: int) -> Question:
        """Take a rendered row apart at its first answer."""
        tokens, trained = example.rendered.tokens, example.rendered.trained
        is_text = all(trained[1:])  # the first token may be untrained, because nothing predicts it
        start = max(1, int(len(tokens) * BEGINNING)) if is_text else trained.index(True)
        end = next((place for place in range(start, len(tokens)) if not trained[place]), len(tokens))
        if end > start and tokens[end - 1] == stop_token:
            end -= 1
        return cls(example.name, tokens[:start], tokens[start:end], is_text)


@dataclass(frozen=True)
class OwnAnswers:
    """Measurements of the answers to prompts of the dataset.

    Attributes:
        count: the number of prompts.
        copies: the names of the training rows whose answers were given to other prompts, one for each copy.
        could_end: the number of answers that would end within the limit if they were as long as those of the rows.
        ended: the number of those that the model ended by itself.
        base_ended: the same for the base model alone.
        expected_different: the number of different answers that the rows give.
        different: the number of different answers that the model gave.
        base_different: the same for the base model alone.
        variety: the share of an answer that differs between two seeds, from 0 to 1.
        base_variety: the same for the base model alone.
    """

    count: int
    copies: tuple[str, ...]
    could_end: int
    ended: int
    base_ended: int
    expected_different: int
    different: int
    base_different: int
    variety: float
    base_variety: float

    def lines(self) -> list[str]:
        """Return one report line per measurement."""
        such = f", such as that of {self.copies[0]}" if self.copies else ""
        lines = [f"Copies: {len(self.copies)} of {self.count} answers are training answers to another prompt{such}"]
        if self.could_end:
            lines.append(
                f"Endings: {self.ended} of {self.could_end} answers ended by themselves, without the LoRA "
                f"{self.base_ended}"
            )
        lines.append(
            f"Variety: answers of two seeds differ by {self.variety:.0%}, without the LoRA by {self.base_variety:.0%}"
        )
        return lines


@dataclass(frozen=True)
class TextMeasures:
    """Measurements of the texts that a LoRA changes.

    Attributes:
        effect: how far the LoRA moves the predictions for the answers of the dataset, as a Kullback-Leibler divergence
            in nats per token.
        drift: how far it moves the predictions for the base model's own answers to unrelated prompts.
        kept: the number of answers to unrelated prompts that stayed the same.
        unrelated: the number of unrelated prompts that were answered.
        compared_tokens: the number of tokens from the start of an answer that were compared.
        own: the measurements of the answers to prompts of the dataset; None if there was no time for them.
    """

    effect: float
    drift: float
    kept: int
    unrelated: int
    compared_tokens: int
    own: OwnAnswers | None = None

    @property
    def changed(self) -> int:
        """The number of answers to unrelated prompts that changed."""
        return self.unrelated - self.kept

    def lines(self) -> list[str]:
        """Return one report line per measurement."""
        lines = [
            f"Effect: predictions for answers of the dataset moved by {self.effect:.3f} nats per token (0: not at all)",
            f"Forgetting: {self.kept} of {self.unrelated} answers to unrelated prompts stayed the same (first "
            f"{self.compared_tokens} tokens); predictions for them moved by {self.drift:.3f} nats per token",
        ]
        return lines if self.own is None else [*lines, *self.own.lines()]


def mean_divergence(base_model: LanguageBaseModel, rows: Sequence[CachedExample], batch_size: int) -> float:
    """Return the mean divergence of the adapters from the base model per trained token, in nats.

    Args:
        base_model: the base model that carries the adapters.
        rows: the rows to predict, at least one.
        batch_size: the number of rows in a forward pass; only rows of the same group share one.
    """
    total, weight = 0.0, 0.0
    groups: dict[object, list[CachedExample]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            weights = torch.tensor([row.weight for row in batch], dtype=torch.float64)
            total += float((base_model.divergence_from_base(batch).double() * weights).sum())
            weight += float(weights.sum())
    return total / weight


def example_of(name: str, prompt: Sequence[int], answer: Answer, stop_token: int) -> TextExample | None:
    """Return an answer that a model wrote as an example to predict; None for an answer without any token.

    An answer that reached the longest answer has no stop token to predict.
    """
    tokens = (*answer.tokens, stop_token) if answer.stopped else answer.tokens
    if not tokens:
        return None
    rendered = Rendered((*prompt, *tokens), (*[False] * len(prompt), *[True] * len(tokens)))
    return TextExample(name, rendered, len(rendered.tokens))


def measure_own(
    questions: Sequence[Question],
    trained: Sequence[Answer],
    base: Sequence[Answer],
    training: Sequence[Question],
    renderer: Renderer,
    limit: int,
    varieties: tuple[float, float],
) -> OwnAnswers:
    """Measure the answers to prompts of the dataset.

    Args:
        questions: the prompts with their rows' answers.
        trained, base: the answers with and without the LoRA.
        training: the training rows.
        renderer: turns tokens into text.
        limit: the most tokens of an answer.
        varieties: the differences between answers of two seeds, with and without the LoRA.
    """
    could_end = [place for place, question in enumerate(questions) if len(question.answer) < limit]
    return OwnAnswers(
        count=len(questions),
        copies=tuple(_copies(questions, trained, base, training, renderer)),
        could_end=len(could_end),
        ended=sum(trained[place].stopped for place in could_end),
        base_ended=sum(base[place].stopped for place in could_end),
        expected_different=len({question.answer for question in questions}),
        different=len({answer.tokens for answer in trained}),
        base_different=len({answer.tokens for answer in base}),
        variety=varieties[0],
        base_variety=varieties[1],
    )


def difference(one: Answer, other: Answer) -> float:
    """Return the share of two answers that differs, from 0 for the same tokens to 1 for no common token."""
    return 1 - SequenceMatcher(None, one.tokens, other.tokens, autojunk=False).ratio()


def _copies(
    questions: Sequence[Question],
    trained: Sequence[Answer],
    base: Sequence[Answer],
    training: Sequence[Question],
    renderer: Renderer,
) -> list[str]:
    """Return the name of the training row for each answer that was copied.

    An answer is no copy if it is right, if the base model gives it too, or if several prompts are trained to have it.
    """
    rows = [row for row in training if not row.is_text]
    texts = [row for row in training if row.is_text]
    found = []
    for question, answer, before in zip(questions, trained, base, strict=True):
        text, right = _plain(answer.text), _plain(renderer.decode(question.answer))
        if answer.tokens == before.tokens or text == right:
            continue
        if question.is_text:
            name = _copied_text(text, right, question, texts, renderer)
        else:
            name = _copied_answer(text, len(answer.tokens), question, rows, renderer)
        if name:
            found.append(name)
    return found


def _copied_answer(text: str, count: int, question: Question, rows: Sequence[Question], renderer: Renderer) -> str:
    if len(text) < LEAST_CHARACTERS:
        return ""
    # Only answers of about as many tokens are turned into text, which takes long for all rows of a large dataset.
    alike = [row for row in rows if abs(len(row.answer) - count) <= TOKENS_APART]
    same = [row for row in alike if _plain(renderer.decode(row.answer)) == text]
    if len({row.prompt for row in same}) != 1 or same[0].prompt == question.prompt:
        return ""
    return same[0].name


def _copied_text(text: str, right: str, question: Question, texts: Sequence[Question], renderer: Renderer) -> str:
    if len(text) < LEAST_OF_A_TEXT or text in right:
        return ""
    others = (row for row in texts if row.name != question.name)
    return next((row.name for row in others if text in _plain(renderer.decode((*row.prompt, *row.answer)))), "")


def _plain(text: str) -> str:
    """Return a text without differences of case and spacing."""
    return " ".join(text.split()).casefold()
