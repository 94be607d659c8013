"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import indent

from torch import Tensor

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

    def sample_texts(self) -> str:
        """Return the sample answers of a language model, round by round, below their prompts; "" if there are none."""
        lines = []
        prompts = self.files.read_prompts()
        for step, samples in self.files.read_samples().items():
            if isinstance(samples, Tensor):
                continue
            lines.append(f"After step {step}:" if step else "Before the first step:")
            for prompt, answer in zip(prompts, samples, strict=False):
                lines += [indent(prompt, "  "), indent(answer, "    ")]
        return "\n".join(lines)
