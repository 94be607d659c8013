"""The log of a run, with one line per step."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..events.step import StepReport
from ..files.atomic import write_whole
from ..files.text import encoded
from .paths import LOG

KEYS = {"step", "loss", "learning_rates", "errors", "skipped"}
"""The keys that a line of the log must have to be read."""


class RunLog:
    """Writes one line of JSON per step to log.jsonl.

    Args:
        folder: the folder of the run.
        unit: the word for an example in the singular, whose plural is the key of the names in a line.
        steps: the number of steps done; entries of later steps are deleted, because those steps are trained again.

    Attributes:
        path: the path of log.jsonl.
    """

    def __init__(self, folder: Path, unit: str, steps: int = 0) -> None:
        self.path, self._unit = folder / LOG, unit
        if self.path.exists():
            kept = [_text(line) for line in read_log(self.path) if line["step"] <= steps]
            write_whole(self.path, encoded("".join(kept)), what="The log")

    def write(self, report: StepReport) -> None:
        """Append the line of a step to log.jsonl.

        Raises:
            OSError: the line cannot be written; no partial line is left behind.
        """
        line = encoded(_text(_line(report, self._unit)))
        with open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) < len(line):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log.jsonl, skipping damaged ones; an empty list if the file does not exist."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            values = json.loads(line)
            if isinstance(values, dict) and values.keys() >= KEYS:
                found.append(values)
    return found


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _line(report: StepReport, unit: str) -> dict[str, Any]:
    values = asdict(report)
    del values["rows"]
    return values | {"errors": report.errors, f"{unit}s": [row.name for row in report.rows]}
