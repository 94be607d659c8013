"""Measurement of what the finished LoRA does to texts, compared with the base model alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from PIL import Image

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.cache import TensorCache
from ..data.text.rendering import prompt_tokens
from ..hardware.out_of_memory import Attempt
from ..models.language.model import Answer, LanguageBaseModel
from .answer_sheet import Compared, answer_sheet
from .result_evaluation import MOST_TIME, ResultEvaluation, is_measured, why_not
from .text_metrics import (
    OwnAnswers,
    Question,
    TextMeasures,
    difference,
    example_of,
    mean_divergence,
    measure_own,
)
from .unrelated_prompts import measured_prompts
from .validation import Validation

COMPARED_TOKENS = 32
"""The most tokens of an answer to an unrelated prompt that are written and compared. A change shows early, because each
token depends on all before it."""

OWN_PROMPTS = 8
"""The number of prompts of the dataset that are answered, preferably of held-out rows."""

SEEDED_PROMPTS = 4
"""The number of those that are also answered with two seeds."""

AT_ONCE = 8
"""The number of prompts that are answered at once."""

Both = tuple[list[Answer], list[Answer]]
"""The answers with the LoRA, and those of the base model alone."""


class TextEvaluation(ResultEvaluation):
    """Answers prompts with and without the LoRA, and measures how the answers and the predictions differ.

    If `measure` is `auto`, unrelated prompts are answered until the time for measuring is over, so on a slow machine
    they are fewer. If that runs out of memory (OOM), fewer prompts are answered at once.

    Args:
        base_model: the base model that carries the adapters.
        dataset: the rows that are trained.
        config: the settings of the run.
        validation: the measurement of the error, whose rows are also used here; None if there is none.

    Attributes:
        measures: the measurements; None if there are none.
    """

    measures: TextMeasures | None
    makes_texts = True
    conditions = ""

    def __init__(
        self, base_model: LanguageBaseModel, dataset: Dataset, config: ResolvedConfig, validation: Validation | None
    ) -> None:
        self._base_model, self._dataset, self._config = base_model, dataset, config
        self._rows = () if validation is None else validation.held_out or validation.training
        self.measures = None
        self._seconds = 0.0
        self._not_measured = "" if is_measured(config) else f"No answers were measured, because {why_not(config)}."

    def measure(
        self, adapters: Adapters, training_seconds: float, seconds_per_sampling_step: float | None
    ) -> Mapping[str, Image.Image | str]:
        if not is_measured(self._config) or not self._rows:
            return {}
        time_left = math.inf
        if self._config.measure == "auto":
            time_left = MOST_TIME * training_seconds
            expected = self._least_seconds(seconds_per_sampling_step)
            if expected > time_left:
                self._not_measured = (
                    f"No answers were measured, because that would have taken about {expected:.0f} s after a training "
                    f"of {training_seconds:.0f} s. Set measure to always to measure them anyway."
                )
                return {}
        started = time.monotonic()
        with adapters.without_dropout(), torch.no_grad():
            outcome = self._base_model.memory.first_that_fits(self._attempts(adapters, started + time_left))
        if outcome.result is None:
            self._not_measured = "No answers were measured, because there was not enough memory to write them."
            return {}
        self.measures, compared = outcome.result
        self._seconds = time.monotonic() - started
        return {"measures.md": answer_sheet(compared)}

    def lines(self, complete: bool) -> list[str]:
        if self.measures is None:
            return [self._not_measured] if complete and self._not_measured else []
        return [
            f"Measured in {self._seconds:.1f} s (the answers are in measures.md):",
            *(f"  {line}" for line in self.measures.lines()),
        ]

    def error_text(self, error: float) -> str:
        perplexity = math.exp(error) if error < math.log(1e12) else math.inf
        return f"{error:.4f} (perplexity {perplexity:,.2f})"

    def _least_seconds(self, seconds_per_sampling_step: float | None) -> float:
        """Return about how long the answers to the first unrelated prompts take; 0 if that is unknown."""
        if seconds_per_sampling_step is None:
            return 0.0
        seconds_per_answer = seconds_per_sampling_step * self._config.sample_steps
        return 2 * AT_ONCE * seconds_per_answer * min(1.0, COMPARED_TOKENS / self._config.max_new_tokens)

    def _attempts(
        self, adapters: Adapters, deadline: float
    ) -> Iterator[Attempt[tuple[TextMeasures, dict[str, list[Compared]]]]]:
        """Yield attempts to measure, each with fewer prompts at once after an out-of-memory error (OOM)."""
        at_once = AT_ONCE
        while True:
            yield Attempt(f"{at_once} prompts at once", partial(self._measured, adapters, at_once, deadline))
            if at_once == 1:
                break
            at_once //= 2

    def _measured(
        self, adapters: Adapters, at_once: int, deadline: float
    ) -> tuple[TextMeasures, dict[str, list[Compared]]]:
        effect = mean_divergence(self._base_model, self._rows, min(at_once, self._config.batch_size))
        length = min(COMPARED_TOKENS, self._config.max_new_tokens)
        drift, unrelated = self._unrelated(adapters, at_once, length, deadline)
        own: OwnAnswers | None = None
        answered: list[Compared] = []
        if time.monotonic() < deadline:
            own, answered = self._own(adapters, at_once)
        kept = sum(one.before == one.after for one in unrelated)
        measures = TextMeasures(effect, drift, kept, len(unrelated), length, own)
        return measures, {"Prompts of the dataset": answered, "Unrelated prompts": unrelated}

    def _unrelated(
        self, adapters: Adapters, at_once: int, length: int, deadline: float
    ) -> tuple[float, list[Compared]]:
        """Answer unrelated prompts, at least the first few; return the drift and the answers."""
        prompts, compared, examples = measured_prompts(self._dataset, self._config), [], []
        for start in range(0, len(prompts), at_once):
            if start >= AT_ONCE and time.monotonic() >= deadline:
                break
            some = prompts[start : start + at_once]
            tokens = [prompt_tokens(self._base_model.renderer, prompt) for prompt in some]
            after, before = self._both(adapters, tokens, length, None)
            for turns, prompt, one, other in zip(some, tokens, before, after, strict=True):
                compared.append(Compared(turns[-1].text, one.text, other.text))
                example = example_of(turns[-1].text, prompt, one, self._base_model.renderer.stop_token)
                if example is not None:
                    examples.append(example)
        rows = self._base_model.cache_inputs(examples, TensorCache(None), 0.0, True, lambda done, total, what: None)
        # One row at a time, because their lengths differ.
        return mean_divergence(self._base_model, rows, 1) if rows else 0.0, compared

    def _own(self, adapters: Adapters, at_once: int) -> tuple[OwnAnswers, list[Compared]]:
        """Answer prompts of the dataset; return what was measured, and the answers."""
        renderer, limit, config = self._base_model.renderer, self._config.max_new_tokens, self._config
        questions = self._questions()
        prompts = [question.prompt for question in questions]
        after, before = self._in_parts(prompts, at_once, lambda part: self._both(adapters, part, limit, None))
        few = prompts[:SEEDED_PROMPTS]
        seeded = [
            self._in_parts(few, at_once, partial(self._both, adapters, limit=limit, seed=(config.seed + one) % 2**63))
            for one in range(2)
        ]
        with_lora, alone = (sum(map(difference, seeded[0][which], seeded[1][which])) / len(few) for which in range(2))
        not_trained = set(self._dataset.regularization_names)
        training = [
            Question.of(example, renderer.stop_token)
            for example in self._dataset.examples(config.resolution)
            if example.name not in not_trained and any(example.rendered.trained)
        ]
        compared = [
            Compared(
                renderer.decode(question.prompt), one.text, other.text, renderer.decode(question.answer), question.name
            )
            for question, one, other in zip(questions, before, after, strict=True)
        ]
        return measure_own(questions, after, before, training, renderer, limit, (with_lora, alone)), compared

    def _questions(self) -> list[Question]:
        """Return prompts of held-out rows or, if there are none, of training rows."""
        held_out, training = self._dataset.measured_examples(OWN_PROMPTS, self._config.resolution)
        stop_token = self._base_model.renderer.stop_token
        return [Question.of(example, stop_token) for example in held_out or training if any(example.rendered.trained)]

    def _both(self, adapters: Adapters, prompts: Sequence[Sequence[int]], limit: int, seed: int | None) -> Both:
        """Answer prompts with the LoRA and without it, in the same batch, so that only the LoRA makes a difference."""
        after = self._base_model.answers(prompts, limit, seed)
        with adapters.without_effect():
            return after, self._base_model.answers(prompts, limit, seed)

    def _in_parts(
        self, prompts: Sequence[Sequence[int]], at_once: int, answer: Callable[[Sequence[Sequence[int]]], Both]
    ) -> Both:
        after: list[Answer] = []
        before: list[Answer] = []
        for start in range(0, len(prompts), at_once):
            more_after, more_before = answer(prompts[start : start + at_once])
            after, before = after + more_after, before + more_before
        return after, before
