"""Has `probe.py` carry out steps in a process of its own, which may end or hang in any of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 300
"""How long all steps together may take: a cold disk needs a minute or two for torch and transformers."""

HANGS = f"hangs: not done within {SECONDS} s"


@dataclass(frozen=True)
class Step:
    """To import `module` and get its `attribute`; without a module, the function `name` of the probe."""

    name: str
    module: str = ""
    attribute: str = ""

    @property
    def message(self) -> dict[str, str]:
        if not self.module:
            return {"name": self.name}
        return {"name": self.name, "module": self.module, "attribute": self.attribute}


def probe(steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """
    Returns:
        For each step, by name, what the probe's function gave; or `error`, and in `absent` the module that an import
        did not find. Steps after one that hangs have no answer.
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
    """What the probe wrote, and how it ended."""
    asked = json.dumps({"path": sys.path, "steps": [step.message for step in steps]})
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
        return "", f"Python could not be started once more: {error}"
    return done.stdout.decode("ascii", "replace"), f"ends the process that loads it, with status {done.returncode}"
