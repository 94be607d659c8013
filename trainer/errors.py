"""Errors that are shown to the user as they are."""

from __future__ import annotations


class CrucibleError(Exception):
    """A mistake that the user can put right; its message is all that is shown, without a stack trace.

    The message says what happened, with which value or file, why it matters and what to do next. Subclass it
    only where somebody catches the subclass.
    """
