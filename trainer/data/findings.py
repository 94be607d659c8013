"""Findings about a dataset that the user should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..messages.wording import listed

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
