"""What a run writes beside the LoRA and its checkpoints: it can do without."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Extras:
    """Log, samples, pictures and report: one that cannot be written never ends the training."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Inside, `what` is written (the subject of a sentence). A failure is named once, and kept for the report."""
        try:
            yield
        except Exception as error:  # not the system's alone: others' code draws the plots and writes for TensorBoard
            if what not in self._failed:
                self._failed[what] = f"{what} could not be written, and the run went on without. {error}"
                log.warning(self._failed[what])

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each that could not be written at least once."""
        return tuple(self._failed.values())
