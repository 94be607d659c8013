"""The verdict on a run (too little, good, forgets or too much), with the reasons for it and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .advice import against_memorising, against_swings
from .error_signs import MEMORISED, NO_GAIN, fall, judge_errors, shown_on_others
from .evidence import Evidence, Signs
from .image_metrics import ImageMeasures
from .image_signs import advice_about_the_trigger_word, judge_images
from .text_metrics import TextMeasures
from .text_signs import against_forgetting, forgets_much, forgets_too_much, forgetting, judge_texts

Word = Literal["too little", "good", "forgets", "too much", "none"]
"""The verdict in one word. "forgets" is only said of language models: what should be learned was, but answers to
unrelated prompts changed."""


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
    return replace(found, reasons=reasons, advice=(against_swings(evidence.config, evidence.unit), *found.advice))


def _judge(evidence: Evidence) -> Verdict:
    if len(evidence.rounds) < 2 and evidence.measures is None:
        return Verdict("none", ("Nothing was measured.",))
    too_much, too_little = Signs(), Signs()
    if len(evidence.rounds) >= 2:
        judge_errors(evidence, too_much, too_little)
    match evidence.measures:
        case ImageMeasures() as images:
            judge_images(evidence, images, too_much, too_little)
        case TextMeasures() as texts:
            judge_texts(evidence, texts, too_much, too_little)
            return _with_forgetting(evidence, texts, too_much, too_little)
    caveat = _caveat(evidence)
    if too_much.reasons:
        return Verdict("too much", (*too_much.reasons, *caveat), too_much.advice)
    if not evidence.complete:
        return _stopped(caveat)
    if too_little.reasons:
        return Verdict("too little", (*too_little.reasons, *caveat), too_little.advice)
    if evidence.makes_texts:
        unknown = "Whether the model forgets was not measured, so this may be too much."
        return Verdict("none", (_settled(evidence), unknown, *caveat), ("Set measure to always.",))
    return Verdict("good", (_settled(evidence), *caveat), _advice_for_good(evidence))


def _with_forgetting(evidence: Evidence, measures: TextMeasures, too_much: Signs, too_little: Signs) -> Verdict:
    """Judge a language model, whose verdict always says what it forgot and what to do about that."""
    told, caveat = forgetting(measures), _caveat(evidence)
    forgotten = (told,) if told else ()
    if too_much.reasons or forgets_too_much(evidence, measures):
        unfinished = () if too_much.reasons or not _learned(evidence) else too_little.reasons
        # One advice on steps and learning rate is enough, and that for the errors knows the best step. With less
        # training, a model that has not learned enough yet would only learn less.
        less = not unfinished and not any("learning_rate" in one or "Train for" in one for one in too_much.advice)
        against = against_forgetting(evidence, less=less) if told else []
        reasons = (*too_much.reasons, *forgotten, *unfinished, *caveat)
        return Verdict("too much", reasons, _joined(too_much.advice, against))
    if not evidence.complete:
        stopped = _stopped((*forgotten, *caveat))
        return replace(stopped, advice=tuple(against_forgetting(evidence, less=False)) if told else ())
    if too_little.reasons:
        against = against_forgetting(evidence, less=False) if told else []
        return Verdict("too little", (*too_little.reasons, *forgotten, *caveat), _joined(against, too_little.advice))
    reasons = (_settled(evidence), *forgotten, *caveat)
    against = against_forgetting(evidence, less=True) if told else []
    if forgets_much(measures):
        return Verdict("forgets", reasons, tuple(against))
    return Verdict("good", reasons, _joined(_advice_for_good(evidence), against))


def _joined(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _stopped(caveat: tuple[str, ...]) -> Verdict:
    return Verdict("none", ("The run was stopped before its end. So far there is no sign of too much.", *caveat))


def _caveat(evidence: Evidence) -> tuple[str, ...]:
    if evidence.has_validation:
        return ()
    return (
        f"No {evidence.unit} was held out for validation, so overfitting can only be seen in the samples. Set "
        "validation_percent to 10 to measure it and to save the best state.",
    )


def _learned(evidence: Evidence) -> bool:
    """Return whether the error fell."""
    return len(evidence.rounds) > 1 and fall(evidence.errors[0], evidence.errors[-1]) > NO_GAIN


def _settled(evidence: Evidence) -> str:
    if len(evidence.rounds) < 2:
        made = "answers" if evidence.makes_texts else "images"
        return f"The {made} show no sign of too little or too much training."
    where = evidence.measured_on
    settled = fall(evidence.errors[0], evidence.best.error)
    return f"The error on {where} fell by {settled:.1%} and has settled."


def _advice_for_good(evidence: Evidence) -> tuple[str, ...]:
    advice: list[str] = []
    shown = shown_on_others(evidence.rounds) if evidence.rounds else None
    if shown is not None and shown < MEMORISED:
        advice += against_memorising(evidence)
    if isinstance(evidence.measures, ImageMeasures):
        advice += advice_about_the_trigger_word(evidence.measures)
    return tuple(advice) or ("Use it. If it is too strong or too weak, change its strength before you train again.",)
