"""What written texts say about a run: what it learned, and what it forgot."""

from __future__ import annotations

from .advice import against_memorising, longer
from .evidence import Evidence, Signs
from .text_metrics import OwnAnswers, TextMeasures

LITTLE_EFFECT = 0.02
"""The effect (see `TextMeasures`) below which hardly any answer changes."""

COPIES = 0.25
"""The share of answers above which copies of training answers count as memorising."""

ENDINGS = 0.5
"""The share of answers that must end by themselves, of those that could."""

ALIKE = 0.5
"""The share of different answers, of those that the rows give, at or below which all prompts get the same answers."""

LEAST_COMPARED = 4
"""The fewest answers that say anything about copies, endings and variety."""

KEPT_PERCENT = 95
"""The percentage of answers to unrelated prompts that must stay the same in a good run."""

NEARLY_ALL_PERCENT, MANY_PERCENT = 90, 33
"""The percentages of changed answers to unrelated prompts from which a run is too much: with regularization rows, and
without them, where a remedy is at hand. On the demo, half of the answers change without them, and a sixth with them."""

MUCH_DRIFT = 0.3
"""The drift in nats per token from which changed answers say other things than before. Long answers change by a word
here and there without it. With regularization rows it was 0.1 on the demo, and 0.25 on a chat model of 135 million
parameters, of whose 40 answers 38 changed a little; without them, that model had 0.6 and answered in another style."""

MOST_PRIOR_LOSS_WEIGHT = 10.0
"""The highest `prior_loss_weight` that a config may have."""


def judge_texts(evidence: Evidence, measures: TextMeasures, too_much: Signs, too_little: Signs) -> None:
    """Add the signs of too much and of too little that the texts show, except for what the model forgot."""
    if measures.effect < LITTLE_EFFECT:
        remedy = longer(evidence, "longer", evidence.config.learning_rate * 3)
        known = bool(too_little.advice)  # the advice for the errors helps here too
        too_little.add(
            f"The predictions for answers moved by only {measures.effect:.3f} nats per token.",
            *([] if known else [remedy]),
        )
    if measures.own is not None and measures.own.count >= LEAST_COMPARED:
        _judge_own(evidence, measures.own, too_much, too_little)


def _judge_own(evidence: Evidence, own: OwnAnswers, too_much: Signs, too_little: Signs) -> None:
    config = evidence.config
    fewer = f"Train for {max(1, config.max_train_steps // 2)} steps."
    if len(own.copies) > COPIES * own.count:
        too_much.add(
            f"{len(own.copies)} of {own.count} answers are copies of training answers to other prompts, such as that "
            f"of {own.copies[0]}.",
            fewer,
            *against_memorising(evidence),
        )
    if own.different <= ALIKE * own.expected_different and own.different < own.base_different:
        too_much.add(
            f"Different prompts get the same answers: {own.different} different ones to {own.count} prompts, without "
            f"the LoRA {own.base_different}.",
            fewer,
            *against_memorising(evidence),
        )
    if own.could_end < LEAST_COMPARED or own.ended >= ENDINGS * own.could_end:
        return
    told = f"Only {own.ended} of {own.could_end} answers ended by themselves"
    if own.base_ended > own.ended:
        too_much.add(
            f"{told}, without the LoRA {own.base_ended}.", f"Lower learning_rate to {config.learning_rate / 2:g}."
        )
    else:
        known = bool(too_little.advice)
        too_little.add(f"{told}.", *([] if known else [longer(evidence, "longer", evidence.config.learning_rate * 2)]))


def forgets_too_much(evidence: Evidence, measures: TextMeasures) -> bool:
    """Return whether so many answers to unrelated prompts changed that the run was too much."""
    config = evidence.config
    if config.regularization_rows or config.reg_data_dir:
        nearly_all = 100 * measures.changed >= NEARLY_ALL_PERCENT * measures.unrelated
        return measures.changed > 0 and nearly_all and measures.drift >= MUCH_DRIFT
    return measures.changed > 0 and 100 * measures.changed >= MANY_PERCENT * measures.unrelated


def forgets_much(measures: TextMeasures) -> bool:
    """Return whether more answers to unrelated prompts changed than in a good run."""
    return 100 * measures.kept < KEPT_PERCENT * measures.unrelated


def forgetting(measures: TextMeasures) -> str:
    """Return a sentence about what the model forgot; "" if no answer to an unrelated prompt changed."""
    if not measures.changed:
        return ""
    return (
        f"It forgets: {measures.changed} of {measures.unrelated} answers to unrelated prompts changed "
        f"({measures.kept} stayed the same)."
    )


def against_forgetting(evidence: Evidence, *, less: bool) -> list[str]:
    """Return advice for a model that forgot something.

    Args:
        evidence: the evidence that the run is judged by.
        less: whether to advise to train less as well; not for a run that has not learned enough yet.
    """
    config = evidence.config
    advice = []
    if not config.regularization_rows:
        advice.append(
            "Set regularization_rows to true: the model's own answers to other prompts are then trained along with "
            "your rows."
        )
    elif config.prior_loss_weight < MOST_PRIOR_LOSS_WEIGHT:
        weight = min(MOST_PRIOR_LOSS_WEIGHT, max(1.0, config.prior_loss_weight * 2))
        advice.append(f"Raise prior_loss_weight to {weight:g}, or put more prompts into reg_data_dir.")
    else:
        advice.append("Put more prompts into reg_data_dir.")
    if less:
        advice.append(
            f"Train for {max(1, config.max_train_steps // 2)} steps, or lower learning_rate to "
            f"{config.learning_rate / 2:g}."
        )
    return advice
