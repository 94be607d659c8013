"""Regularization rows: the base model's own answers to other prompts, trained along so that it forgets less.

A plan is made before the weights of the model may be used, so it holds a row without an answer for each prompt. That is
enough to count examples and steps. The answers are written when the run is prepared, before adapters are attached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from ..config import TrainingConfig
from ..data.base import Dataset
from ..data.cache import Job, TensorCache
from ..data.text.examples import TextExample
from ..data.text.rendering import has_conversations, prompt_tokens
from ..data.text.rows import Row, Turn
from ..distributed.processes import current
from ..errors import CrucibleError
from ..evaluation.unrelated_prompts import Prompt, trained_prompts
from ..hardware.out_of_memory import Attempt
from ..messages.wording import counted
from ..models.base import BaseModel
from ..models.examples import Progress
from ..models.language.model import Answer, LanguageBaseModel
from ..planning.plan import Plan

UNKNOWN = "…"
"""What stands for an answer until it is known."""

AT_ONCE = 8
"""The number of prompts that are answered at once."""


@runtime_checkable
class TakesRegularization(Protocol):
    """A dataset that rows can be added to for regularization."""

    def with_regularization(self, rows: Sequence[Row]) -> Dataset:
        """Return the dataset with these regularization rows, in place of those that were added before.

        In the form of a base model, it stays in that form.
        """


def with_prompts_to_answer(base_model: BaseModel, dataset: Dataset, config: TrainingConfig) -> Dataset:
    """Return the dataset with a row without an answer for each prompt that the base model is to answer itself.

    Args:
        base_model: the base model, which need not be in its session.
        dataset: the dataset, not yet in the form of the base model.
        config: the settings of the run.
    """
    prompts = trained_prompts(dataset, dataset.settle(config))
    if not (prompts and isinstance(dataset, TakesRegularization) and isinstance(base_model, LanguageBaseModel)):
        return dataset
    return dataset.with_regularization(_rows(base_model, prompts, [UNKNOWN] * len(prompts)))


def with_own_answers(
    base_model: BaseModel, plan: Plan, identity: str, cache: TensorCache, progress: Progress
) -> tuple[Dataset, list[Any], list[str]]:
    """Write the answers that the plan has only prompts for; a plan without such prompts stays as it is.

    Answers are kept in the cache, because they only depend on the weights, the prompts and the longest answer.

    Args:
        base_model: the base model without adapters, in its session.
        plan: the plan of the run.
        identity: the hash of the base model's weights.
        cache: the cache of the run.
        progress: a function called with (done, total, what is being done).

    Returns:
        The dataset, its examples of an epoch, and sentences for the report.

    Raises:
        CrucibleError: the base model answered none of the prompts.
    """
    dataset, config = plan.dataset, plan.resolved.values
    prompts = trained_prompts(dataset, config)
    if not (prompts and isinstance(dataset, TakesRegularization) and isinstance(base_model, LanguageBaseModel)):
        return dataset, plan.examples, []
    setting = f"{identity}|{base_model.encoders_identity()}|{config.mixed_precision}|{config.max_new_tokens}"
    jobs = [
        _to_answer(base_model, prompts[start : start + AT_ONCE], setting, config.max_new_tokens)
        for start in range(0, len(prompts), AT_ONCE)
    ]
    processes = current()
    if processes.joint:  # the base model answers for one process at a time
        found = processes.from_main(processes.by_main(lambda: [cache.get(job.key, job.make) for job in jobs]))
    else:
        cache.fill(jobs, progress, base_model.memory.is_out_of_memory)
        found = [cache.get(job.key) for job in jobs]
    answers = [Answer(text, tuple(ids), stopped) for some in found for text, ids, stopped in some]
    written = zip(_rows(base_model, prompts, [answer.text for answer in answers]), answers, strict=True)
    kept = [(row, answer) for row, answer in written if answer.text.strip()]
    rows, cut = [row for row, _ in kept], {row.name for row, answer in kept if not answer.stopped}
    if not rows:
        raise CrucibleError(
            f"{base_model.name} gave an empty answer to each of the {counted(len(prompts), 'prompt')} for "
            "regularization, so there is nothing to train so that it forgets less. Put prompts that it answers into "
            "reg_data_dir, or set regularization_rows to false."
        )
    dataset = dataset.with_regularization(rows)
    stop = base_model.renderer.stop_token
    examples = [_without_stop(one, stop) if one.name in cut else one for one in dataset.examples(config.resolution)]
    note = f"Regularization: {counted(len(rows), 'answer')} of the base model to other prompts were trained along."
    if cut:
        note += (
            f" {len(cut)} of them were cut after {config.max_new_tokens} tokens (max_new_tokens), and their ends were "
            "not trained."
        )
    return dataset, examples, [note]


def _rows(base_model: LanguageBaseModel, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Row]:
    """Return prompts with their answers as rows: as conversations if the model has a template for them, or as texts."""
    are_texts = not has_conversations(base_model.renderer)
    rows = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), start=1):
        name = f"regularization row {number}"
        if are_texts:
            rows.append(Row(name, "text", text=f"{prompt[-1].text}{answer}"))
        else:
            rows.append(Row(name, "messages", (*prompt, Turn("assistant", answer))))
    return rows


def _to_answer(base_model: LanguageBaseModel, prompts: Sequence[Prompt], setting: str, longest: int) -> Job:
    """Return the job of writing the likeliest answer to each prompt, as (text, tokens, whether it has ended)."""
    tokens = [prompt_tokens(base_model.renderer, prompt) for prompt in prompts]

    def answers(at_once: int) -> list[tuple[str, list[int], bool]]:
        parts = [tokens[start : start + at_once] for start in range(0, len(tokens), at_once)]
        found = [one for part in parts for one in base_model.answers(part, longest)]
        return [(one.text, list(one.tokens), one.stopped) for one in found]

    def written() -> list[tuple[str, list[int], bool]]:
        attempts = [Attempt(f"{count} at once", partial(answers, count)) for count in (AT_ONCE, 1)]
        return base_model.memory.first_that_fits(attempts).required()

    count = len(prompts)
    return Job(f"own answers|{setting}|{tokens}", written, "regularization rows", cost=count, count=count)


def _without_stop(example: TextExample, stop_token: int) -> TextExample:
    """Return an example of which the stop token at its end is not trained."""
    tokens, trained = example.rendered.tokens, list(example.rendered.trained)
    last = max((place for place, is_trained in enumerate(trained) if is_trained), default=None)
    if last is None or tokens[last] != stop_token:
        return example
    trained[last] = False
    return replace(example, rendered=replace(example.rendered, trained=tuple(trained)))
