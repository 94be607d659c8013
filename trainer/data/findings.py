"""Findings about a dataset that the user should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

NAMES_SHOWN = 5
"""The number of file names that a message lists before it only counts the rest."""

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From most to least severe: what prevents training, what makes its result worse, and what was done or is good to
know."""


@dataclass(frozen=True)
class Finding:
    """One finding about a dataset.

    Attributes:
        kind: an identifier for programs, such as `near_duplicates`.
        severity: how much it matters, see `SEVERITIES`.
        what: what was found, in one sentence.
        consequence: why it matters.
        remedy: what to do about it.
        images: the names of all images concerned.
    """

    kind: str
    severity: Severity
    what: str
    consequence: str = ""
    remedy: str = ""
    images: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the finding as one paragraph, with the first few names of images."""
        names = f" ({listed(self.images)})" if self.images else ""
        return " ".join(part for part in (f"{self.what.rstrip('.')}{names}.", self.consequence, self.remedy) if part)


def by_weight(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings from most to least severe, keeping the order among equals."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def listed(names: Sequence[str]) -> str:
    """List the first few names, and say how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun in singular or plural: 1 image, 2 images."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
