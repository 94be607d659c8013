"""What is worth saying about a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..messages.wording import listed

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Heaviest first: what keeps the training from starting, what makes its result worse, what was done or is good to
know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a word for programs, as `near_duplicates`.
        what: what was found, in one sentence.
        consequence: why it matters. remedy: what to do.
        images: names of the images concerned, all of them.
    """

    kind: str
    severity: Severity
    what: str
    consequence: str = ""
    remedy: str = ""
    images: tuple[str, ...] = ()

    def text(self) -> str:
        """One paragraph, with the first few names."""
        names = f" ({listed(self.images)})" if self.images else ""
        return " ".join(part for part in (f"{self.what.rstrip('.')}{names}.", self.consequence, self.remedy) if part)


def by_weight(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings from most to least severe, keeping the order among equals."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
