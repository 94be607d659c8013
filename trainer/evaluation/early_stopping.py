"""Early stopping of a run whose validation error no longer improves."""

from __future__ import annotations


class EarlyStopping:
    """Stops when the validation error has not improved for a while (Prechelt 1998, "Early stopping, but when?").

    Args:
        patience: the number of rounds in a row without improvement after which to stop; 0 never stops.
        threshold: the smallest improvement that counts, as a share of the best error so far.
    """

    def __init__(self, patience: int, threshold: float) -> None:
        self._patience = patience
        self._threshold = threshold
        self._best: float | None = None
        self._waited = 0

    def add(self, error: float) -> bool:
        """Add the error of a round, and return whether to stop. An error that is NaN is no improvement."""
        if self._best is None or error < self._best * (1 - self._threshold):
            self._best, self._waited = error, 0
        else:
            self._waited += 1
        return 0 < self._patience <= self._waited

    def state(self) -> tuple[float | None, int]:
        """Return what `restore` needs."""
        return self._best, self._waited

    def restore(self, state: tuple[float | None, int]) -> None:
        """Continue from a `state`."""
        self._best, self._waited = state


class StoppedEarly(Exception):
    """Raised to end the training loop when early stopping finishes the run."""
