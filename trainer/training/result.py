"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..evaluation.validation import Round
from ..evaluation.verdict import Verdict
from ..formats.lora_model import LoraModel
from ..models.previews import Samples
from ..runs.paths import RunFiles


@dataclass
class RunResult:
    """The result of a run, filled in as the run proceeds.

    Attributes:
        files: the files of the run.
        lora: the saved LoRA; empty until it is saved.
        losses: the loss of each step.
        samples: the rounds of samples that were drawn, in order.
        rounds: the rounds of validation, in order.
        verdict: the verdict on the result; None until the report is written.
        report: the report for the user, as plain text.
    """

    files: RunFiles
    lora: LoraModel = field(default_factory=lambda: LoraModel({}))
    losses: list[float] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    verdict: Verdict | None = None
    report: str = ""
