"""What all readers of CSV tables have in common."""

from __future__ import annotations

import csv

LONGEST_FIELD = 1_000_000
"""The most characters in a CSV field; Python's default is 131,072."""


def allow_long_fields() -> None:
    """Let Python's csv module read fields of up to `LONGEST_FIELD` characters."""
    csv.field_size_limit(LONGEST_FIELD)


def delimiter_of(first_line: str) -> str:
    """Return what separates the cells of a table: a tab, comma or semicolon, the first of them that its line has."""
    return next((one for one in "\t,;" if one in first_line), ",")
