"""Findings about a dataset that the user should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..messages.wording import counted, listed

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The severities, most severe first: errors prevent training, warnings make its result worse, and notes say what was
done or is good to know."""


@dataclass(frozen=True)
class Finding:
    """A finding about a dataset.

    Attributes:
        kind: an identifier for programs, such as `near_duplicates`.
        severity: how serious the finding is.
        what: a sentence that says what was found.
        consequence: a sentence that says why it matters, or "".
        remedy: a sentence that says what to do, or "".
        images: the names of all images concerned.
    """

    kind: str
    severity: Severity
    what: str
    consequence: str = ""
    remedy: str = ""
    images: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the finding as one paragraph, with the first few names."""
        names = f" ({listed(self.images)})" if self.images else ""
        return " ".join(part for part in (f"{self.what.rstrip('.')}{names}.", self.consequence, self.remedy) if part)


def by_weight(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings from most to least severe, keeping the order among equals."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def verdict_of(findings: Sequence[Finding]) -> str:
    """Return a sentence that says whether a dataset with these findings is ready for training."""
    counts = Counter(finding.severity for finding in findings)
    if counts["error"]:
        return f"NOT READY: {counted(counts['error'], 'thing')} to fix before training."
    if counts["warning"]:
        return f"READY, with {counted(counts['warning'], 'thing')} worth a look first."
    return "READY: no problems were found."


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Return findings as the lines of a report, under a heading for each severity."""
    lines = []
    for severity, title in (("error", "To be fixed"), ("warning", "Worth a look"), ("note", "Good to know")):
        found = [finding for finding in findings if finding.severity == severity]
        if found:
            lines += ["", f"{title}:", *(f"- {finding.text()}" for finding in found)]
    return lines
