"""The error on fixed examples with fixed noise: two rounds differ only by what was learned between them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.cache import TensorCache
from ..distributed.processes import current
from ..hardware.out_of_memory import Attempt
from ..models.base import BaseModel
from ..models.examples import CachedExample, Progress
from ..seeding import derived_seed

MOST_EXAMPLES = 16
"""The most held-out and the most training examples to measure; with fixed noise, more would change little."""


@dataclass(frozen=True)
class Round:
    """The mean errors measured after `step` steps, in which each example counts by its weight.

    Attributes:
        step: the number of steps done.
        trained: the sum of the learning rates of all steps so far; 0 before the first.
        training: the error on training examples.
        held_out: the error on as many held-out examples; None if there are none.
        by_timestep: the error at each of the base model's `measured_timesteps`, on held-out examples if there are any.
    """

    step: int
    trained: float
    training: float
    held_out: float | None = None
    by_timestep: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """The error to compare rounds by: on held-out examples if there are any, otherwise on training examples."""
        return self.training if self.held_out is None else self.held_out


class Validation:
    """Measures the error of the base model with its adapters as they are.

    Args:
        base_model: the base model that carries the adapters.
        held_out, training: the examples, each with one view and one caption and without caption dropout; `held_out` may
            be empty.
        batch_size: the number of rows in a forward pass.
        seed: the seed of the noise.

    Attributes:
        held_out, training: the examples that are measured.
        seconds: the time that all rounds took, in seconds.
    """

    def __init__(
        self,
        base_model: BaseModel,
        held_out: Sequence[CachedExample],
        training: Sequence[CachedExample],
        batch_size: int,
        seed: int,
    ) -> None:
        self._base_model = base_model
        self.held_out, self.training = held_out, training
        self._batch_size = batch_size
        self._seed = seed
        self.seconds = 0.0

    def attempts(self, step: int, trained: float) -> Iterator[Attempt[Round]]:
        """Yield attempts at a round, each with fewer rows at a time after an out-of-memory error (OOM).

        The dropout of the adapters must be off.

        Args:
            step: the number of steps done.
            trained: the sum of the learning rates of these steps.
        """

        def measured() -> Round:
            return self.measure(step, trained)

        yield Attempt(f"{self._batch_size} rows at a time", measured)
        while self._batch_size > 1:
            self._batch_size = -(-self._batch_size // 2)
            yield Attempt(f"{self._batch_size} rows at a time", measured)
        yield Attempt("one row at a time, again", measured)

    def measure(self, step: int, trained: float) -> Round:
        """Measure one round. The dropout of the adapters must be off."""
        started = time.monotonic()
        training = self._errors(self.training)
        held_out = self._errors(self.held_out) if self.held_out else None
        self.seconds += time.monotonic() - started
        mean = None if held_out is None else statistics.fmean(held_out)
        return Round(step, trained, statistics.fmean(training), mean, held_out or training)

    @torch.no_grad()
    def _errors(self, examples: Sequence[CachedExample]) -> tuple[float, ...]:
        """Return the mean error at each of the measured timesteps, in which each example counts by its weight."""
        all_timesteps = self._base_model.measured_timesteps
        groups: dict[Hashable, list[tuple[int, int]]] = {}
        for index, example in enumerate(examples):
            groups.setdefault(example.group, []).extend((index, number) for number in range(len(all_timesteps)))
        batches = [rows[start : start + self._batch_size] for rows in groups.values() for start in self._starts(rows)]
        processes = current()
        # Processes take turns, unless all are needed for each batch.
        turns = 1 if processes.joint else processes.count
        own = batches[processes.rank % turns :: turns]

        def measured() -> list[list[float]]:
            return [self._measured(examples, batch) for batch in own]

        parts = processes.together(measured, self._base_model.memory.is_out_of_memory)
        found = [parts[number % turns][number // turns] for number in range(len(batches))]
        rows = [row for batch in batches for row in batch]
        errors = torch.tensor([error for batch in found for error in batch], dtype=torch.float64)
        weights = torch.tensor([examples[index].weight for index, _ in rows], dtype=torch.float64)
        sums = torch.zeros(len(all_timesteps), dtype=torch.float64)
        sums.index_add_(0, torch.tensor([number for _, number in rows]), errors * weights)
        return tuple((sums / sum(example.weight for example in examples)).tolist())

    def _starts(self, rows: Sequence[object]) -> range:
        return range(0, len(rows), self._batch_size)

    def _measured(self, examples: Sequence[CachedExample], batch: Sequence[tuple[int, int]]) -> list[float]:
        """Return the errors of examples at timesteps, given as pairs of an example's index and a timestep's number."""
        seeds = [derived_seed(self._seed, "validation", index, number) for index, number in batch]
        timesteps = [self._base_model.measured_timesteps[number] for _, number in batch]
        errors = self._base_model.losses([examples[index] for index, _ in batch], seeds, timesteps).errors
        found: list[float] = errors.double().cpu().tolist()
        return found


def prepare_validation(
    base_model: BaseModel, dataset: Dataset, config: ResolvedConfig, cache: TensorCache, progress: Progress
) -> Validation | None:
    """Encode the examples to measure, while the encoders are loaded.

    Args:
        base_model: the base model, with its encoders loaded.
        dataset: the dataset that the examples are taken from.
        config: the settings of the run.
        cache: the cache of encoded inputs.
        progress: a function called with (done, total, what is being done).

    Returns:
        The validation; None if the dataset has no examples to measure.
    """
    held_out, training = dataset.measured_examples(MOST_EXAMPLES, config.resolution)
    if not training:
        return None
    cached = base_model.cache_inputs([*held_out, *training], cache, 0.0, not config.train_text_encoder, progress)
    return Validation(
        base_model, cached[: len(held_out)], cached[len(held_out) :], config.batch_size, dataset.validation_seed
    )
