"""Errors that are shown to the user as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Kind = Literal["", "settings", "data", "model", "memory", "disk", "in use"]
"""What an error is about, which is how the command line tells kinds of failure apart; "" if it is none of these."""


class CrucibleError(Exception):
    """An error that the user can fix; only its message is shown, without a stack trace.

    The message says what happened, with which value or file, why it matters and what to do next. Subclass it
    only if the subclass is caught somewhere.

    Args:
        message: the message.
        kind: what the error is about.

    Attributes:
        kind: what the error is about, which `errors_about` decides if it was not said.
    """

    kind: Kind = ""

    def __init__(self, message: str, kind: Kind = "") -> None:
        super().__init__(message)
        self.kind = kind or type(self).kind


@contextmanager
def errors_about(kind: Kind) -> Iterator[None]:
    """Say what the errors inside the context are about, unless they say it themselves."""
    try:
        yield
    except CrucibleError as error:
        error.kind = error.kind or kind
        raise
