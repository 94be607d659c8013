"""The watch over one run: measures while it trains, keeps the best state, ends it in time, judges it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

from PIL import Image
from torch import Tensor

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.cache import TensorCache
from ..data.images.dataset import Dataset, TrainingImage
from ..data.images.samples import fixed_samples
from ..events.step import StepReport
from ..memory.retry import retried
from ..messages.wording import counted
from ..models.base import BaseModel, CachedExample, Progress, RowLosses, Sampling
from ..monitoring.hard_images import HardExamples
from ..monitoring.loss_swings import Swing
from ..planning.resolve import usual_learning_rate
from .early_stopping import EarlyStopping, StoppedEarly
from .image_metrics import Measures, Pictures, compare, measure_samplings, sheet
from .validation import MOST_IMAGES, Round, Validation
from .verdict import Evidence, Verdict, judge, shown_on_others
from .weight_snapshot import copied, put, swapped

log = logging.getLogger(__name__)

LEAST_STEPS = 50
"""Of a run that is measured by itself: shorter ones are trials."""

MOST_TIME = 0.5
"""Part of the training's time that measuring the pictures may take when nobody asked for it."""

ROUNDS_WITHOUT_VALIDATION = 2
"""Measurements of the training images, beside the first: enough to see whether they are still being learned."""


class Evaluator:
    """
    Args:
        samples: what is sampled during the training; the pictures that are measured are made likewise.

    Attributes:
        rounds: of validation. Without images for that, of the training images alone.
        stopped_early: whether it ended the run.
        samplings: what it will draw.
        swing: of the error while it trained; whoever has the errors of all steps sets it.
    """

    def __init__(self, base_model: BaseModel, dataset: Dataset, config: ResolvedConfig, sampling: Sampling) -> None:
        self._base_model, self._dataset, self._config = base_model, dataset, config
        self.rounds: list[Round] = []
        self.stopped_early = False
        self.swing: Swing | None = None
        self._watch = HardExamples(image.name for image in dataset.images)
        self._early_stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_threshold)
        self._trained = 0.0
        self._step = 0
        self._measures: Measures | None = None
        self._not_measured = ""
        self._measuring_seconds = 0.0
        long_enough = config.measure == "always" or config.max_train_steps >= LEAST_STEPS
        self._measured = config.measure != "never" and long_enough
        if not self._measured:
            why = "measure is never" if config.measure == "never" else f"the run has fewer than {LEAST_STEPS} steps"
            self._not_measured = f"No pictures were measured, because {why}."
        drawn = measure_samplings(dataset, sampling, base_model.architecture.id) if self._measured else {}
        self.samplings = drawn
        if dataset.validation:
            self._every = config.validate_every_n_steps
        else:
            self._every = -(-config.max_train_steps // ROUNDS_WITHOUT_VALIDATION)

    def encode(self, cache: TensorCache, progress: Progress) -> None:
        """Have the images that it measures encoded, while the encoders are there."""
        self._validation: Validation | None = None
        if not self._dataset.validation and not self._measured:
            return
        held_out = _spread(self._dataset.validation, MOST_IMAGES)
        training = _spread(self._dataset.images, len(held_out) or MOST_IMAGES)
        samples = [
            sample
            for images in (held_out, training)
            for sample in fixed_samples(self._dataset, images, self._config.resolution)
        ]
        cached = self._base_model.cache_inputs(samples, cache, 0.0, progress, self._config.train_text_encoder)
        self._validation = Validation(
            self._base_model.losses,
            cached[: len(held_out)],
            cached[len(held_out) :],
            self._config.batch_size,
            self._dataset.settings.validation_seed,
        )

    def start(self, adapters: Adapters, weights_for_use: Callable[[], AbstractContextManager[None]]) -> None:
        """Watch these adapters from now on.

        Args:
            weights_for_use: while it is open, the adapters have the weights that the file would have.
        """
        self._adapters, self._weights_for_use = adapters, weights_for_use
        self._best: tuple[Round, list[Tensor]] | None = None

    def losses(self, rows: Sequence[CachedExample], seeds: Sequence[int]) -> RowLosses:
        """The base model's, with hard images weighted down if the config says so."""
        losses = self._base_model.losses(rows, seeds)
        return self._watch.weighted(losses, rows) if self._config.downweight_hard_images else losses

    def after_step(self, report: StepReport) -> None:
        """Take note of a step."""
        self._step = report.step
        if not report.skipped:
            self._trained += max(report.learning_rates.values())
        self._watch.add(report.rows)

    def validate_when_due(self) -> None:
        """Measure after the current step, and before the first, where that is due and not done.

        Raises:
            StoppedEarly: the validation error has not improved for as long as the config allows.
        """
        due = self._step % self._every == 0 or self._step == self._config.max_train_steps
        done = any(one.step == self._step for one in self.rounds)
        if self._validation is not None and due and not done:
            self._validate(self._validation)
        if self.stopped_early:
            raise StoppedEarly

    def _validate(self, validation: Validation) -> None:
        def measured() -> Round:
            with self._weights_for_use(), self._adapters.without_dropout():
                return validation.measure(self._step, self._trained)

        latest = retried(self._base_model, measured, validation.make_smaller)
        if latest is None:
            log.warning("Memory did not suffice to measure the error after step %d, so that was left out.", self._step)
        else:
            self._add(latest)

    def state(self) -> dict[str, Any]:
        """What `restore` needs: nested, of CPU tensors and plain values. They do not change any more."""
        best = None if self._best is None else (self.rounds.index(self._best[0]), self._best[1])
        return {
            "step": self._step,
            "trained": self._trained,
            "rounds": [asdict(one) for one in self.rounds],
            "best": best,
            "early_stopping": self._early_stopping.state(),
            "watch": self._watch.state(),
            "validation_seconds": 0.0 if self._validation is None else self._validation.seconds,
        }

    def restore(self, state: Mapping[str, Any], *, comparable: bool = True) -> None:
        """Go on from a `state`, after `start`.

        Args:
            comparable: whether errors that were measured compare with those to come.
        """
        self._step, self._trained = state["step"], state["trained"]
        self._watch.restore(state["watch"])
        if not comparable:
            self.rounds, self._best = [], None
            return
        self.rounds = [Round(**one) for one in state["rounds"]]
        self._best = None if state["best"] is None else (self.rounds[state["best"][0]], list(state["best"][1]))
        self._early_stopping.restore(state["early_stopping"])
        if self._validation is not None:
            self._validation.seconds = state["validation_seconds"]

    def _add(self, latest: Round) -> None:
        self.rounds.append(latest)
        if latest.held_out is None:
            return
        stop = self._early_stopping.add(latest.held_out)
        self.stopped_early = stop and self._step < self._config.max_train_steps
        # Before the first step there is nothing to keep: no LoRA, or one that has a file already.
        if self._step and (self._best is None or latest.error < self._best[0].error):
            self._best = latest, copied(self._adapters.parameters())

    @property
    def better_step(self) -> int | None:
        """The step after which the LoRA was better than it is now; None where the last state is as good."""
        if self._best is None or self.rounds[-1].error <= self._best[0].error * (
            1 + self._config.early_stopping_threshold
        ):
            return None
        return self._best[0].step

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Inside, the adapters are as they were best; there is a `better_step`."""
        assert self._best is not None
        with swapped(self._best[1], self._adapters.parameters()):
            yield

    def go_back(self) -> None:
        """Put the best state into the adapters."""
        assert self._best is not None
        put(self._best[1], self._adapters.parameters())

    def measure_pictures(self, training_seconds: float, seconds_per_sampling_step: float) -> Image.Image | None:
        """Draw with the adapters as they are, and the base model alone.

        Args:
            seconds_per_sampling_step: of one picture; on `auto` nothing is drawn when that would take too long.

        Returns:
            All pictures, above without the LoRA, below with it; None where nothing was drawn.
        """
        if not self._measured:
            return None
        steps = sum(sampling.steps * len(sampling.prompts) for sampling in self.samplings.values())
        expected = 2 * steps * seconds_per_sampling_step
        if self._config.measure == "auto" and expected > MOST_TIME * training_seconds:
            self._not_measured = (
                f"No pictures were measured, because that would have taken about {expected:.0f} s beside a training of "
                f"{training_seconds:.0f} s. Set measure to always to have it done."
            )
            return None
        started = time.monotonic()
        drawn = retried(self._base_model, self._drawn)
        if drawn is None:
            self._not_measured = "No pictures were measured, because memory did not suffice to draw them."
            return None
        base, trained = drawn
        self._measures = compare(base, trained, self._dataset.images)
        self._measuring_seconds = time.monotonic() - started
        return sheet(base, trained)

    def _drawn(self) -> tuple[Pictures, Pictures]:
        """Without and with the LoRA."""

        def pictures() -> Pictures:
            return {name: self._base_model.sample(sampling) for name, sampling in self.samplings.items()}

        with self._adapters.without_dropout():
            trained = pictures()
            with self._adapters.without_effect():
                return pictures(), trained

    def metadata(self) -> dict[str, str]:
        """What the file of a LoRA says of the validation; nothing without images for it."""
        if self._best is None:
            return {}
        best, last = self._best[0], self.rounds[-1]
        facts = {
            "images": min(len(self._dataset.validation), MOST_IMAGES),
            "start": self.rounds[0].held_out,
            "best": best.held_out,
            "best_step": best.step,
            "last": last.held_out,
            "last_step": last.step,
        }
        return {"crucible.validation": json.dumps(facts)}

    def verdict(self, complete: bool) -> Verdict:
        usual_rate, _ = usual_learning_rate(self._config, self._base_model.architecture.id)
        evidence = Evidence(
            self.rounds,
            self._config,
            len(self._dataset.images),
            usual_rate,
            complete,
            self.stopped_early,
            self._measures,
            self.swing,
        )
        return judge(evidence)

    def lines(self, complete: bool) -> list[str]:
        """What it saw, for the report."""
        lines = [*self._validation_lines(), *self._watch.lines(self._config.downweight_hard_images)]
        if self._measures is not None:
            drawn = 2 * sum(len(sampling.prompts) for sampling in self.samplings.values())
            lines.append(f"Measured on {drawn} pictures in {self._measuring_seconds:.1f} s (measures.png):")
            lines += [f"  {line}" for line in self._measures.lines(self._dataset.trigger_word)]
        elif complete and self._not_measured:
            lines.append(self._not_measured)
        if self.rounds or self._measures is not None or self.swing is not None:
            lines += self.verdict(complete).lines()
        return lines

    def _validation_lines(self) -> list[str]:
        if self._validation is None or not self.rounds:
            return []
        start, last, seconds = self.rounds[0], self.rounds[-1], self._validation.seconds
        if start.held_out is None or self._best is None:
            count = counted(min(len(self._dataset.images), MOST_IMAGES), "training image")
            return [
                f"Error on {count}, fixed noise: {start.error:.4f} before the first step, {last.error:.4f} after step "
                f"{last.step} (measuring took {seconds:.1f} s)"
            ]
        best = self._best[0]
        count = counted(min(len(self._dataset.validation), MOST_IMAGES), "image")
        lines = [
            f"Validation on {count}, fixed noise: {start.error:.4f} before the first step, {best.error:.4f} at best "
            f"(step {best.step}), {last.error:.4f} at the end; on as many training images {start.training:.4f} and "
            f"{last.training:.4f} ({len(self.rounds)} measurements took {seconds:.1f} s)"
        ]
        shown = shown_on_others(self.rounds)
        if shown is not None:
            lines.append(f"Of what was learned of the training images, {max(0.0, shown):.0%} shows on the others")
        if self.stopped_early:
            patience, threshold = self._config.early_stopping_patience, self._config.early_stopping_threshold
            lines.append(
                f"Stopped early: {counted(patience, 'measurement')} in a row did not lower the validation error by "
                f"{threshold:.1%} (early_stopping_patience, early_stopping_threshold)"
            )
        return lines


def _spread(images: Sequence[TrainingImage], count: int) -> list[TrainingImage]:
    """At most `count` of them, evenly from first to last."""
    if len(images) <= count:
        return list(images)
    return [images[index * len(images) // count] for index in range(count)]
