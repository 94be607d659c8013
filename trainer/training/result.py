"""What a run made."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..evaluation.validation import Round
from ..evaluation.verdict import Verdict
from ..formats.lora_model import LoraModel
from ..models.previews import Samples
from ..runs.paths import RunFiles


@dataclass
class RunResult:
    """What a run made.

    Attributes:
        files: where it wrote.
        lora: the LoRA that was saved; empty until then.
        losses: the loss of each step.
        samples: the rounds of samples that were drawn, in order.
        rounds: the rounds of validation.
        verdict: the judgement of the result; None if nothing was measured.
        report: everything that the user should know, as a page of plain text.
    """

    files: RunFiles
    lora: LoraModel = field(default_factory=lambda: LoraModel({}))
    losses: list[float] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    verdict: Verdict | None = None
    report: str = ""
