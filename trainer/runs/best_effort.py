"""What a run does beside training: it can do without."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class BestEffort:
    """Log, samples, pictures and report: one that fails never ends the training.

    Attributes:
        notes: sentences about what failed, for the report.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._failed: set[str] = set()

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Inside, `what` is written (the subject of a sentence). A failure is named once, and kept for the report."""
        try:
            yield
        except Exception as error:  # not the system's alone: others' code draws the plots and writes for TensorBoard
            if what not in self._failed:
                self._failed.add(what)
                self.note(f"{what} could not be written, and the run went on without. {error}")

    def note(self, text: str) -> None:
        """For the log at once, and for the report."""
        log.warning("%s", text)
        if text not in self.notes:
            self.notes.append(text)
