"""Ctrl-C and other signals that ask a command to stop: a run stops where its state is complete."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

STDERR = 2
"""The file descriptor of the standard error stream."""

SECONDS_APART = 1.0
"""The time after which a further Ctrl-C is taken for another one. A launcher of several processes passes on the one
that the terminal has sent to all of them already."""

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
"""The signals that ask to stop: Ctrl-C, the end of the machine or its job, a lost connection, Windows' Ctrl-Break."""


class Stopped(KeyboardInterrupt):
    """Raised where a command stops because a signal asked for it.

    Attributes:
        status: the exit status that shells give to a command that this signal stopped.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = 128 + number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` inside the context wherever a signal arrives that asks to stop.

    One that comes right after another changes nothing, because what the first one stops is still being told.
    """
    before: list[float] = []

    def stop(number: int, frame: Any) -> None:
        before.append(time.monotonic())
        if len(before) == 1 or before[-1] - before[-2] > SECONDS_APART:
            raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], None]]:
    """Yield a function to call wherever a run may stop, which raises `Stopped` once a signal has asked for it.

    A second Ctrl-C ends the process at once with status 130; since files are only ever written completely, nothing is
    damaged. Any other signal may be repeated: programs that end a machine or a group of processes do that.
    """
    asked: list[tuple[int, float]] = []

    def ask(number: int, frame: Any) -> None:
        now = time.monotonic()
        if not asked:
            asked.append((number, now))
            again = " Press Ctrl-C again to stop immediately." if number == signal.SIGINT else ""
            _tell(f"\nStopping after this batch and saving.{again}\n")
        elif number == signal.SIGINT and now - asked[0][1] > SECONDS_APART:
            _tell("\nStopped without saving. The next start resumes from the last checkpoint.\n")
            os._exit(128 + signal.SIGINT)

    def check() -> None:
        if asked:
            raise Stopped(asked[0][0])

    with _handled_by(ask):
        yield check


class Stopping:
    """Runs other processes, and passes on to them the signals that ask to stop.

    Attributes:
        number: the first signal that asked to stop, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end, with this process's input and output, and return its exit status."""
        self._process = subprocess.Popen(command, env=dict(environment))  # noqa: S603
        try:
            return self._process.wait()
        finally:
            self._process = None

    def ask(self, number: int, frame: Any) -> None:
        """Pass on a signal."""
        self.number = self.number or number
        if self._process is not None:
            with suppress(OSError, ValueError):  # Windows can only send some, and has sent Ctrl-C to all already
                self._process.send_signal(number)


@contextmanager
def forwarded_signals() -> Iterator[Stopping]:
    """Yield what runs other processes; signals that arrive inside the context are passed on to the one that runs."""
    stopping = Stopping()
    with _handled_by(stopping.ask):
        yield stopping


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a handler handle the signals inside the context; only the main thread can do that."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            # nohup ignores the end of the connection, so that the command goes on.
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
                continue
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def _tell(message: str) -> None:
    # Not print, because the signal may have interrupted the progress bar's printing.
    with suppress(OSError):  # nobody reads it any more
        os.write(STDERR, message.encode())
