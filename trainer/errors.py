"""Errors that are shown to the user as they are."""

from __future__ import annotations


class CrucibleError(Exception):
    """An error that the user can fix; only its message is shown, without a stack trace.

    The message says what happened, with which value or file, why it matters and what to do next. Subclass it
    only if the subclass is caught somewhere.
    """
