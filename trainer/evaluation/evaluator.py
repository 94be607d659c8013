"""Validation of a run while it trains, with its best state and early stopping."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..events.step import StepReport
from ..models.memory_controls import MemoryControls
from .early_stopping import EarlyStopping
from .validation import Round, Validation
from .weight_snapshot import copied, put, swapped

log = logging.getLogger(__name__)

ROUNDS_WITHOUT_VALIDATION = 2
"""The number of rounds after the one before the first step if no examples are held out. They measure training examples
and are enough to see whether these are still being learned."""


class Evaluator:
    """Measures the error of a run when it is due, keeps the best weights, and decides on early stopping.

    Args:
        validation: the measurement of the error; None measures nothing.
        config: the settings of the run.
        controls: the memory controls of the base model.

    Attributes:
        validation: the measurement of the error; None measures nothing.
        rounds: the rounds of validation so far, on training examples only if none are held out.
        stopped_early: whether the run was stopped because the error no longer improved.
    """

    def __init__(self, validation: Validation | None, config: ResolvedConfig, controls: MemoryControls) -> None:
        self.validation, self._config, self._controls = validation, config, controls
        self.rounds: list[Round] = []
        self.stopped_early = False
        self._early_stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_threshold)
        self._every = config.validate_every_n_steps
        if validation is None or not validation.held_out:
            self._every = -(-config.max_train_steps // ROUNDS_WITHOUT_VALIDATION)
        self._best: tuple[Round, list[Tensor]] | None = None
        self._trained = 0.0
        self._step = 0

    def start(self, adapters: Adapters, weights_for_use: Callable[[], AbstractContextManager[None]]) -> None:
        """Measure these adapters from now on.

        Args:
            adapters: the adapters that are trained.
            weights_for_use: returns a context in which the adapters have the weights that a file would have.
        """
        self._adapters, self._weights_for_use = adapters, weights_for_use
        self._best = None

    def after_step(self, report: StepReport) -> None:
        """Record a step."""
        self._step = report.step
        if not report.skipped:
            self._trained += max(report.learning_rates.values())

    def validate_when_due(self) -> Round | None:
        """Measure after the current step, or before the first, if a round is due and not done yet.

        A round that runs out of memory (OOM) however it is split is skipped with a warning.

        Returns:
            What was measured; None if nothing was.
        """
        due = self._step % self._every == 0 or self._step == self._config.max_train_steps
        done = any(one.step == self._step for one in self.rounds)
        if self.validation is not None and due and not done:
            return self._validate(self.validation)
        return None

    def _validate(self, validation: Validation) -> Round | None:
        with self._weights_for_use(), self._adapters.without_dropout():
            outcome = self._controls.first_that_fits_together(validation.attempts(self._step, self._trained))
        if outcome.result is None:
            log.warning(
                "There was not enough memory to measure the error after step %d, so it was skipped.", self._step
            )
        else:
            self._add(outcome.result)
        return outcome.result

    def _add(self, latest: Round) -> None:
        self.rounds.append(latest)
        if latest.held_out is None:
            return
        stop = self._early_stopping.add(latest.held_out)
        self.stopped_early = stop and self._step < self._config.max_train_steps
        # Before the first step there is nothing to keep: no LoRA yet, or one that is in a file already.
        if self._step and (self._best is None or latest.error < self._best[0].error):
            self._best = latest, copied(self._adapters.parameters())

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as nested CPU tensors and plain values that later steps do not change."""
        best = None if self._best is None else (self.rounds.index(self._best[0]), self._best[1])
        return {
            "step": self._step,
            "trained": self._trained,
            "rounds": [asdict(one) for one in self.rounds],
            "best": best,
            "early_stopping": self._early_stopping.state(),
            "validation_seconds": 0.0 if self.validation is None else self.validation.seconds,
        }

    def restore(self, state: Mapping[str, Any], *, comparable: bool = True) -> None:
        """Continue from a `state`; call `start` first.

        Args:
            state: what `state` returned.
            comparable: whether the errors in the state can be compared with later ones; if not, its rounds and best
                weights are dropped.
        """
        self._step, self._trained = state["step"], state["trained"]
        if not comparable:
            self.rounds, self._best = [], None
            return
        self.rounds = [Round(**one) for one in state["rounds"]]
        self._best = None if state["best"] is None else (self.rounds[state["best"][0]], list(state["best"][1]))
        self._early_stopping.restore(state["early_stopping"])
        if self.validation is not None:
            self.validation.seconds = state["validation_seconds"]

    @property
    def best(self) -> Round | None:
        """The round with the lowest validation error; None without held-out examples."""
        return None if self._best is None else self._best[0]

    @property
    def better_step(self) -> int | None:
        """The number of steps after which the LoRA was better than it is now; None if it is as good now."""
        best = self.best
        if best is None or self.rounds[-1].error <= best.error * (1 + self._config.early_stopping_threshold):
            return None
        return best.step

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Give the adapters their best weights inside the context; there must be a `better_step`."""
        assert self._best is not None
        with swapped(self._best[1], self._adapters.parameters()):
            yield

    def keep_best_weights(self) -> None:
        """Give the adapters their best weights for good; there must be a `better_step`."""
        assert self._best is not None
        put(self._best[1], self._adapters.parameters())

    def metadata(self, unit: str) -> dict[str, str]:
        """Return the entry about validation in the metadata of a LoRA file; empty without held-out examples.

        Args:
            unit: the word for an example in the singular.
        """
        best = self.best
        if best is None or self.validation is None:
            return {}
        first, last = self.rounds[0], self.rounds[-1]
        facts = {
            f"{unit}s": len(self.validation.held_out),
            "start": first.held_out,
            "best": best.held_out,
            "best_step": best.step,
            "last": last.held_out,
            "last_step": last.step,
        }
        return {"crucible.validation": json.dumps(facts)}
