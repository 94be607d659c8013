"""Runs the steps of `probe.py` in a separate process, which may end or hang in any of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 300
"""The time limit for all steps together; from a slow disk, torch and transformers take a minute or two to load."""

HANGS = f"hangs: not finished within {SECONDS} s"


@dataclass(frozen=True)
class Step:
    """A step of the probe: it imports `module` and gets `attribute` or, without a module, calls the function `name`."""

    name: str
    module: str = ""
    attribute: str = ""

    @property
    def message(self) -> dict[str, str]:
        """The step as the probe reads it from JSON."""
        if not self.module:
            return {"name": self.name}
        return {"name": self.name, "module": self.module, "attribute": self.attribute}


def probe(steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """Run the steps, in a new process after each one that ends its process.

    Returns:
        The answer to each step, by name: the return value of the probe's function, or a dictionary with `error` and,
        under `absent`, the module that an import did not find. Steps after one that hangs have no answer.
    """
    answers: dict[str, dict[str, Any]] = {}
    while left := [step for step in steps if step.name not in answers]:
        output, ending = _run(left)
        begun = left[0].name
        for line in output.splitlines():
            try:
                told = json.loads(line)
            except ValueError:  # cut off when the process ended
                break
            begun = told.get("begun", begun)
            if "answer" in told:
                answers[told["name"]] = told["answer"]
        answers.setdefault(begun, {"error": ending})
        if ending == HANGS:
            break
    return answers


def _run(steps: Sequence[Step]) -> tuple[str, str]:
    """Run the probe once and return its output and how it ended."""
    asked = json.dumps({"path": [str(folder) for folder in sys.path], "steps": [step.message for step in steps]})
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, str(Path(__file__).with_name("probe.py"))],
            input=asked.encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode("ascii", "replace"), HANGS
    except OSError as error:
        return "", f"a second Python could not be started: {error}"
    return done.stdout.decode("ascii", "replace"), f"ends the process that loads it, with status {done.returncode}"
