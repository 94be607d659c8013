"""Output to a terminal, a file or a pipe that no text can break, whatever is in file names and captions."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

_HARMFUL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
    "|\x1b(?!\\[A)"  # the progress bars move the cursor up by \x1b[A
)
"""Characters that control a terminal or reverse the direction of text, and could disguise what a file is called."""


class SafeOutput:
    """A text stream that shows what its encoding lacks as escapes, such as \\u732b, and outlives its reader.

    When the reader of a pipe has gone away, or nothing more can be written, all further text is dropped, so that a
    command still finishes its work.

    Attributes:
        lost: the error by which text was lost, or None. A reader that went away is no error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = True
        self.lost: OSError | None = None
        with suppress(AttributeError, ValueError):
            cast(Any, stream).reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, with control characters as escapes, and return its length."""
        if self._open:
            try:
                self._stream.write(_HARMFUL.sub(lambda found: ascii(found[0])[1:-1], text))
            except OSError as error:
                self._close(error)
        return len(text)

    def flush(self) -> None:
        """Pass on everything written so far."""
        if self._open:
            try:
                self._stream.flush()
            except OSError as error:
                self._close(error)

    def _close(self, error: OSError) -> None:
        self._open = False
        if error.errno not in (errno.EPIPE, errno.EINVAL):  # Windows reports a closed pipe as EINVAL
            self.lost = error
        # Otherwise Python would try to write the rest when it ends, and report that this failed.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def safe_output() -> Iterator[SafeOutput]:
    """Make the standard output and the standard error stream safe, and yield the former."""
    before = sys.stdout, sys.stderr
    output, errors = SafeOutput(sys.stdout), SafeOutput(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
