"""The verdict on a run (too little, good or too much), with the reasons for it and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..config import ResolvedConfig
from ..monitoring.loss_swings import Swing
from ..planning.run_length import EFFECTIVE_BATCH
from .image_metrics import Measures
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

LITTLE_EFFECT = 0.25
"""The effect (see `Measures`) below which a change of images is hard to see. The demo's style has 0.7."""

STRAY = 0.8
"""The drift (see `Measures`) above which images of unrelated prompts no longer show what was asked for. On the demo
model, a good run has 0.5, and one of ten times its learning rate 1.3."""

SAME = 0.4
"""The variety (see `Measures`) below which all images look the same. On the demo model, a run on 16 images has 0.6 to
0.8, and one that has memorised 5 images 0.3."""

COPY = 0.95
"""The likeness (see `Measures`) above which images are copies of training images, on average over several seeds."""

COPY_OF_ITS_OWN = 0.1
"""The least distance of the base model's likeness below `COPY`, because simple images are alike without training."""

LEAKS = 0.5
"""The effect without the trigger word, as a share of that with it, above which the word is hardly needed."""

Word = Literal["too little", "good", "too much", "none"]


@dataclass(frozen=True)
class Evidence:
    """The evidence that a run is judged by.

    Attributes:
        rounds: the rounds of validation, including the one before the first step.
        config: the settings of the run.
        images: the number of training examples.
        usual_rate: the learning rate that suits the optimizer and the model.
        complete: whether the run reached its end.
        stopped_early: whether early stopping ended the run.
        measures: the measurements of drawn images, or None.
        unit: the word for an example in the singular, such as "image".
        has_captions: whether the examples have captions.
        swing: the swing of the error during training, or None.
    """

    rounds: Sequence[Round]
    config: ResolvedConfig
    images: int
    usual_rate: float
    complete: bool = True
    stopped_early: bool = False
    measures: Measures | None = None
    unit: str = "image"
    has_captions: bool = True
    swing: Swing | None = None

    def __bool__(self) -> bool:
        """Return whether anything was measured."""
        return bool(self.rounds) or self.measures is not None or self.swing is not None

    @property
    def has_validation(self) -> bool:
        """Whether held-out examples were measured."""
        return bool(self.rounds) and self.rounds[0].held_out is not None

    @property
    def measured_on(self) -> str:
        """The examples that the errors were measured on, such as "validation images"."""
        return f"{'validation' if self.has_validation else 'training'} {self.unit}s"

    @property
    def errors(self) -> list[float]:
        """The error of each round, on held-out examples if there are any, otherwise on training examples."""
        return [one.error for one in self.rounds]

    @property
    def best(self) -> Round:
        """The round with the lowest error after training began."""
        return min(self.rounds[1:], key=lambda one: one.error)


@dataclass(frozen=True)
class Verdict:
    """The verdict in one word, with the reasons for it and advice on what to try next, most promising first."""

    word: Word
    reasons: tuple[str, ...]
    advice: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the verdict as report lines."""
        title = "No verdict" if self.word == "none" else f"Verdict: {self.word.upper()}"
        lines = [f"{title}. {' '.join(self.reasons)}"]
        if self.advice:
            lines.append(f"Next: {' '.join(self.advice)}")
        return lines


def judge(evidence: Evidence) -> Verdict:
    """Judge a run.

    Signs of too much outweigh signs of too little, because a LoRA that is past its best has learned enough. A swing of
    the error does not change the verdict, but is reported with it.
    """
    found = _judge(evidence)
    if evidence.swing is None:
        return found
    reasons = (*found.reasons, evidence.swing.text())
    if any("lower learning_rate" in advice.lower() for advice in found.advice):
        return replace(found, reasons=reasons)
    return replace(found, reasons=reasons, advice=(_against_swings(evidence.config, evidence.unit), *found.advice))


def _judge(evidence: Evidence) -> Verdict:
    if len(evidence.rounds) < 2 and evidence.measures is None:
        return Verdict("none", ("Nothing was measured.",))
    too_much, too_little = _Signs(), _Signs()
    if len(evidence.rounds) >= 2:
        _judge_errors(evidence, too_much, too_little)
    if evidence.measures is not None:
        _judge_pictures(evidence, evidence.measures, too_much, too_little)
    caveat = _caveat(evidence)
    if too_much.reasons:
        return Verdict("too much", (*too_much.reasons, *caveat), too_much.advice)
    if not evidence.complete:
        return Verdict("none", ("The run was stopped before its end. So far there is no sign of too much.", *caveat))
    if too_little.reasons:
        return Verdict("too little", (*too_little.reasons, *caveat), too_little.advice)
    return Verdict("good", (_settled(evidence), *caveat), _advice_for_good(evidence))


def _caveat(evidence: Evidence) -> tuple[str, ...]:
    if evidence.has_validation:
        return ()
    return (
        f"No {evidence.unit} was held out for validation, so overfitting can only be seen in the samples. Set "
        "validation_percent to 10 to measure it and to save the best state.",
    )


class _Signs:
    def __init__(self) -> None:
        self.reasons: tuple[str, ...] = ()
        self.advice: tuple[str, ...] = ()

    def add(self, reason: str, *advice: str) -> None:
        self.reasons = (*self.reasons, reason)
        self.advice = tuple(dict.fromkeys((*self.advice, *advice)))


def _judge_errors(evidence: Evidence, too_much: _Signs, too_little: _Signs) -> None:
    config, best = evidence.config, evidence.best
    start, last = evidence.errors[0], evidence.errors[-1]
    speed = learning_at_the_end(evidence.rounds)
    where = evidence.measured_on
    if last > start * (1 + NO_GAIN):
        too_much.add(
            f"The error on {where} ended {last / start - 1:.0%} higher than it began.",
            f"Lower learning_rate to {config.learning_rate / 4:g}.",
        )
    elif last > best.error * (1 + PAST_BEST):
        too_much.add(
            f"The error on {where} was lowest after step {best.step} and ended {last / best.error - 1:.0%} higher.",
            f"Train for {best.step} steps, or lower learning_rate to {config.learning_rate / 2:g}.",
            *_against_memorising(evidence),
        )
    elif best.error > start * (1 - NO_GAIN):
        if _fall(evidence.rounds[0].training, evidence.rounds[-1].training) * MEMORISED > NO_GAIN:
            too_much.add(
                f"The training {evidence.unit}s were learned, but nothing of that carries over to {where}.",
                *_against_memorising(evidence),
            )
        else:
            too_little.add(f"The error on {where} hardly fell.", *_against_standstill(evidence))
    elif not evidence.stopped_early and speed > STILL_FALLING:
        times = 4 if speed > FAR_TOO_LITTLE else 2
        too_little.add(
            f"The error on {where} fell by {_fall(start, last):.1%} and was still falling at the end.",
            _longer(evidence, f"{config.max_train_steps * times} steps", config.learning_rate * times),
        )


def _judge_pictures(evidence: Evidence, measures: Measures, too_much: _Signs, too_little: _Signs) -> None:
    fewer = f"Train for {max(1, evidence.config.max_train_steps // 2)} steps."
    if measures.effect < LITTLE_EFFECT:
        remedy = _longer(evidence, "longer", evidence.config.learning_rate * 3)
        known = bool(too_little.advice)  # the advice for the errors helps here too
        too_little.add(f"Images of the captions changed by only {measures.effect:.2f}.", *([] if known else [remedy]))
    if measures.variety < SAME:
        too_much.add(
            f"Images of different seeds look alike: they differ {measures.variety:.0%} as much as without the LoRA.",
            fewer,
            *_against_memorising(evidence),
        )
    if measures.likeness > COPY and measures.base_likeness < COPY - COPY_OF_ITS_OWN:
        too_much.add(
            f"Its images are copies of training images, such as {measures.nearest}.",
            fewer,
            *_against_memorising(evidence),
        )
    if measures.drift > STRAY:
        too_much.add(
            f"Images of unrelated prompts changed too much: by {measures.drift:.2f}.",
            f"Lower learning_rate to {evidence.config.learning_rate / 2:g}.",
            "Add a regularization folder (reg_data_dir).",
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


def _fall(start: float, end: float) -> float:
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
    learned = _fall(start.training, last.training)
    return _fall(start.held_out, last.held_out) / learned if learned > NO_GAIN else None


def _against_memorising(evidence: Evidence) -> list[str]:
    config = evidence.config
    advice = []
    if config.lora_dropout < 0.1:
        advice.append("Set lora_dropout to 0.1.")
    if evidence.images < 30:
        advice.append(
            f"Add {evidence.unit}s that differ from each other: there are {evidence.images}, and 30 would help."
        )
    return advice or [f"Lower lora_rank to {max(1, config.lora_rank // 2)}."]


def _longer(evidence: Evidence, how_long: str, rate: float) -> str:
    """Return the advice to train for so long or, unless the error swung, at a higher learning rate."""
    more = "" if evidence.swing else f", or raise learning_rate to {rate:g}"
    return f"Train for {how_long}{more}."


def _against_standstill(evidence: Evidence) -> list[str]:
    config = evidence.config
    if config.learning_rate < evidence.usual_rate:
        return [_longer(evidence, "longer", evidence.usual_rate)]
    more = [f"Raise lora_rank to {config.lora_rank * 2}"]
    if config.target_modules == "attention":
        more.append("set target_modules to attention_and_feed_forward")
    advice = [f"{', or '.join(more)}."]
    return [*advice, "Check whether the captions describe what is in the images."] if evidence.has_captions else advice


def _against_swings(config: ResolvedConfig, unit: str) -> str:
    if config.batch_size * config.gradient_accumulation_steps >= EFFECTIVE_BATCH:
        return f"Lower learning_rate to {config.learning_rate / 2:g}."
    accumulation = -(-EFFECTIVE_BATCH // config.batch_size)
    return f"Set gradient_accumulation_steps to {accumulation}: steps on fewer than {EFFECTIVE_BATCH} {unit}s swing."


def _settled(evidence: Evidence) -> str:
    if len(evidence.rounds) < 2:
        return "The images show no sign of too little or too much training."
    where = evidence.measured_on
    fall = _fall(evidence.errors[0], evidence.best.error)
    return f"The error on {where} fell by {fall:.1%} and has settled."


def _advice_for_good(evidence: Evidence) -> tuple[str, ...]:
    advice: list[str] = []
    shown = shown_on_others(evidence.rounds) if evidence.rounds else None
    if shown is not None and shown < MEMORISED:
        advice += _against_memorising(evidence)
    measures = evidence.measures
    if measures is not None and measures.without_word is not None and measures.without_word > LEAKS * measures.effect:
        advice.append(
            "It also acts without its trigger word; regularization images (reg_data_dir) would tie it to the word."
        )
    return tuple(advice) or ("Use it. If it is too strong or too weak, change its strength before you train again.",)
