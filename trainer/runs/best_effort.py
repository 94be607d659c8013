"""Work that a run can do without: its failure is reported and does not stop the training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class BestEffort:
    """Keeps the training going when a log, samples, images or the report cannot be written.

    Attributes:
        notes: sentences for the report about what failed.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._failed: set[str] = set()

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Catch errors inside the context; the first one for each `what` is logged and noted for the report.

        Args:
            what: the thing that is being written, as the subject of a sentence.
        """
        try:
            yield
        except Exception as error:  # not only OSError: plots and TensorBoard logs are made by other packages
            if what not in self._failed:
                self._failed.add(what)
                self.note(f"{what} could not be written, and the run continued without it. {error}")

    def note(self, text: str) -> None:
        """Log a sentence as a warning, and keep it for the report unless it is there already."""
        log.warning("%s", text)
        if text not in self.notes:
            self.notes.append(text)
