"""Ctrl-C on the command line: a run stops where its state is whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STDERR = 2
"""Its number in every process."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], None]]:
    """Yields a function to be called wherever a run may stop: it raises KeyboardInterrupt after Ctrl-C or SIGTERM.

    A second Ctrl-C ends the process at once, with status 130: files appear whole or not at all, so that nothing can be
    spoiled. Only in the main thread, where Python lets signals be handled.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        # Not print: the signal may have come while the progress bar was printing.
        if asked:
            os.write(STDERR, b"\nStopped without saving. The next start goes on from the last checkpoint.\n")
            os._exit(130)
        asked = True
        os.write(STDERR, b"\nStopping after this batch, and saving. Ctrl-C once more stops at once.\n")

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
