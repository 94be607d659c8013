"""Handling of Ctrl-C on the command line: a run stops where its state is complete."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

STDERR = 2
"""The file descriptor of the standard error stream."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], None]]:
    """Yield a function to call wherever a run may stop, which raises KeyboardInterrupt after Ctrl-C or SIGTERM.

    A second Ctrl-C ends the process at once with status 130; since files are only ever written completely, nothing is
    damaged. Works only in the main thread, where Python allows signals to be handled.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            _tell(b"\nStopped without saving. The next start resumes from the last checkpoint.\n")
            os._exit(130)
        asked = True
        _tell(b"\nStopping after this batch and saving. Press Ctrl-C again to stop immediately.\n")

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(message: bytes) -> None:
    # Not print, because the signal may have interrupted the progress bar's printing.
    with suppress(OSError):  # nobody reads it any more
        os.write(STDERR, message)
