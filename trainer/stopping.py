"""Ctrl-C on the command line: a run stops where its state is whole."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], None]]:
    """Yields a function to be called wherever a run may stop: it raises KeyboardInterrupt after Ctrl-C or SIGTERM.

    A second Ctrl-C does so at once, wherever that is. Only in the main thread, where Python lets signals be handled.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nStopping after this batch, and saving. Ctrl-C once more stops at once.", file=sys.stderr)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
