"""Measures a run while it trains, keeps its best state, and stops it when nothing gets better."""

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
from .early_stopping import EarlyStopping, StoppedEarly
from .validation import Round, Validation
from .weight_snapshot import copied, put, swapped

log = logging.getLogger(__name__)

ROUNDS_WITHOUT_VALIDATION = 2
"""How often training examples are measured when none are held out, beside the first time: enough to see whether they
are still being learned."""


class Evaluator:
    """Follows the error of a run.

    Args:
        validation: measures the error; None measures nothing.
        held_out: how many examples are held out.
        config: the settings of the run.
        controls: the base model's memory.

    Attributes:
        rounds: the rounds of validation so far, on training examples alone if none are held out.
        stopped_early: whether the run was stopped because nothing got better.
    """

    def __init__(
        self, validation: Validation | None, held_out: int, config: ResolvedConfig, controls: MemoryControls
    ) -> None:
        self.validation, self._held_out = validation, held_out
        self._config, self._controls = config, controls
        self.rounds: list[Round] = []
        self.stopped_early = False
        self._early_stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_threshold)
        self._every = config.validate_every_n_steps
        if not held_out:
            self._every = -(-config.max_train_steps // ROUNDS_WITHOUT_VALIDATION)
        self._best: tuple[Round, list[Tensor]] | None = None
        self._trained = 0.0
        self._step = 0

    def start(self, adapters: Adapters, weights_for_use: Callable[[], AbstractContextManager[None]]) -> None:
        """Measure these adapters from now on.

        Args:
            weights_for_use: a context inside which the adapters have the weights that a file would have.
        """
        self._adapters, self._weights_for_use = adapters, weights_for_use
        self._best = None

    def after_step(self, report: StepReport) -> None:
        """Take note of a step."""
        self._step = report.step
        if not report.skipped:
            self._trained += max(report.learning_rates.values())

    def validate_when_due(self) -> None:
        """Measure after the current step, and before the first, if that is due and not done yet.

        Raises:
            StoppedEarly: the validation error has not improved for as long as the config allows.
        """
        due = self._step % self._every == 0 or self._step == self._config.max_train_steps
        done = any(one.step == self._step for one in self.rounds)
        if self.validation is not None and due and not done:
            self._validate(self.validation)
        if self.stopped_early:
            raise StoppedEarly

    def _validate(self, validation: Validation) -> None:
        with self._weights_for_use(), self._adapters.without_dropout():
            outcome = self._controls.first_that_fits(validation.attempts(self._step, self._trained))
        if outcome.result is None:
            log.warning("Memory did not suffice to measure the error after step %d, so that was left out.", self._step)
        else:
            self._add(outcome.result)

    def _add(self, latest: Round) -> None:
        self.rounds.append(latest)
        if latest.held_out is None:
            return
        stop = self._early_stopping.add(latest.held_out)
        self.stopped_early = stop and self._step < self._config.max_train_steps
        # Before the first step there is nothing to keep: no LoRA, or one that has a file already.
        if self._step and (self._best is None or latest.error < self._best[0].error):
            self._best = latest, copied(self._adapters.parameters())

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: nested CPU tensors and plain values, which do not change any more."""
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
        """Continue from a `state`, after `start`.

        Args:
            comparable: whether the errors in the state can be compared with those to come.
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
        """The step after which the LoRA was better than it is now; None if the last state is as good."""
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

    def metadata(self) -> dict[str, str]:
        """Return what a LoRA file says about validation; empty without held-out examples."""
        best = self.best
        if best is None:
            return {}
        first, last = self.rounds[0], self.rounds[-1]
        facts = {
            "images": self._held_out,
            "start": first.held_out,
            "best": best.held_out,
            "best_step": best.step,
            "last": last.held_out,
            "last_step": last.step,
        }
        return {"crucible.validation": json.dumps(facts)}
