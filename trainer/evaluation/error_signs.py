"""What the errors of a run say about it."""

from __future__ import annotations

from collections.abc import Sequence

from ..monitoring.error_baseline import SMALLEST_NATS
from .advice import against_memorising, against_standstill, longer
from .evidence import Evidence, Signs
from .validation import Round

NO_GAIN = 0.005
"""The fall of the error, as a share of its start, below which nothing was learned. With fixed noise, a smaller fall is
not chance either, but a LoRA that does so little has no visible effect."""

PAST_BEST = 0.05
"""The most by which the error may end above its best, as a share of the best. On the demo model, a good run ends within
2 %, and one of five times its length 60 % above."""

STILL_FALLING = 0.2
"""The speed of learning in the last half, as a share of the mean speed, above which the run was too short. A steady
fall has 1. On the demo model, a run of 400 steps has 0.1; one of 160 steps, which would still learn a little but not
visibly, has 0.15; one of 80 steps has 0.25."""

FAR_TOO_LITTLE = 0.5
"""The speed of learning in the last half above which training twice as long would still be too short."""

MEMORISED = 0.5
"""The share of what was learned from training images that must carry over to others; below it, the LoRA memorised."""

LEAST_RISE_IN_NATS = 0.02
"""The least rise above the best error that counts for texts, in nats per token. It is 2 % of the perplexity; where a
model is nearly certain of each token, a smaller rise is a large share of the error and still nothing."""


def judge_errors(evidence: Evidence, too_much: Signs, too_little: Signs) -> None:
    """Add the signs of too much and of too little that the errors show; there must be at least two rounds."""
    config, best = evidence.config, evidence.best
    start, last = evidence.errors[0], evidence.errors[-1]
    speed = learning_at_the_end(evidence.rounds)
    least_rise = LEAST_RISE_IN_NATS if evidence.makes_texts else 0.0
    where = evidence.measured_on
    if last > max(start * (1 + NO_GAIN), start + least_rise):
        too_much.add(
            f"The error on {where} ended {last / start - 1:.0%} higher than it began.",
            f"Lower learning_rate to {config.learning_rate / 4:g}.",
        )
    elif last > max(best.error * (1 + PAST_BEST), best.error + least_rise):
        too_much.add(
            f"The error on {where} was lowest after step {best.step} and ended {last / best.error - 1:.0%} higher.",
            f"Train for {best.step} steps, or lower learning_rate to {config.learning_rate / 2:g}.",
            *against_memorising(evidence),
        )
    elif best.error > start * (1 - NO_GAIN):
        if fall(evidence.rounds[0].training, evidence.rounds[-1].training) * MEMORISED > NO_GAIN:
            too_much.add(
                f"The training {evidence.unit}s were learned, but nothing of that carries over to {where}.",
                *against_memorising(evidence),
            )
        else:
            too_little.add(f"The error on {where} hardly fell.", *against_standstill(evidence))
    elif not evidence.stopped_early and speed > STILL_FALLING and not (evidence.makes_texts and last < SMALLEST_NATS):
        times = 4 if speed > FAR_TOO_LITTLE else 2
        too_little.add(
            f"The error on {where} fell by {fall(start, last):.1%} and was still falling at the end.",
            longer(evidence, f"{config.max_train_steps * times} steps", config.learning_rate * times),
        )


def learning_at_the_end(rounds: Sequence[Round]) -> float:
    """Return the speed of learning in the last half of the training, as a share of its mean speed.

    The half is measured by the sum of learning rates, not by steps, because nothing changes at the end of a cosine
    schedule, however much there is left to learn.
    """
    start, last = rounds[0], rounds[-1]
    middle = min(rounds[1:-1], key=lambda one: abs(one.trained - last.trained / 2), default=start)
    whole, rest = start.error - last.error, last.trained - middle.trained
    if whole <= 0 or rest <= 0:
        return 0.0
    return ((middle.error - last.error) / rest) / (whole / last.trained)


def fall(start: float, end: float) -> float:
    """Return the fall of an error as a share of its start."""
    return 1 - end / start if start else 0.0


def shown_on_others(rounds: Sequence[Round]) -> float | None:
    """Return the share of what was learned from training examples that carries over to held-out ones.

    Returns:
        The share; None if no examples are held out or nothing was learned.
    """
    start, last = rounds[0], rounds[-1]
    if start.held_out is None or last.held_out is None:
        return None
    learned = fall(start.training, last.training)
    return fall(start.held_out, last.held_out) / learned if learned > NO_GAIN else None
