"""Loads packages and asks them about the machine; started by `probing.py` as a script, in a process of its own.

A broken package can end or hang the process that loads it. What is to be done comes as JSON from stdin; a line of JSON
goes to stdout before and after each step, so that whoever waits knows in which step the process ended.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

PROCESSES = 3
"""How many of the largest are named."""


def main() -> None:
    # Packages print what they like to stdout; only this script's lines go to whoever reads.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    sys.path[:] = asked["path"]
    for step in asked["steps"]:
        _write(answers, {"begun": step["name"]})
        _write(answers, {"name": step["name"], "answer": _answer(step)})


def _write(file: Any, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def _answer(step: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"memory": memory, "devices": devices}[step["name"]]() if "module" not in step else load(**step)
    except BaseException as raised:  # a package's import may raise anything, SystemExit too
        error = raised
        while error.__cause__ is not None:  # those that load parts late wrap what went wrong
            error = error.__cause__
        text = str(error).strip().splitlines()
        absent = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        return {
            "error": f"{type(error).__name__}: {text[0]}" if text else type(error).__name__,
            "absent": absent if absent and find_spec(absent) is None else "",
        }


def load(name: str, module: str, attribute: str) -> dict[str, Any]:
    """Imports a module; and of one that loads its parts when they are first used, the part named by `attribute`."""
    loaded = import_module(module)
    if attribute:
        getattr(loaded, attribute)
    return {"version": str(getattr(loaded, "__version__", ""))}


def memory() -> dict[str, Any]:
    """The host's memory in bytes, and the largest processes with their resident bytes."""
    import psutil

    whole = psutil.virtual_memory()
    processes = []
    for process in psutil.process_iter(["pid", "name", "memory_info"]):
        facts = process.info
        if facts["memory_info"] is not None and facts["pid"] not in (os.getpid(), os.getppid()):
            processes.append((facts["memory_info"].rss, facts["name"] or "?", facts["pid"]))
    return {"total": whole.total, "free": whole.available, "processes": sorted(processes, reverse=True)[:PROCESSES]}


def devices() -> dict[str, Any]:
    """What torch can compute on."""
    import torch

    answer: dict[str, Any] = {"cuda": torch.version.cuda, "rocm": torch.version.hip, "devices": [], "reason": ""}
    if torch.cuda.is_available():
        answer["devices"] = [_cuda_device(number) for number in range(torch.cuda.device_count())]
    elif torch.backends.mps.is_available():
        answer["devices"] = [_computed({"device": "mps", "name": "Apple"})]
    elif torch.version.cuda or torch.version.hip:
        try:
            torch.cuda.init()
        except Exception as error:
            answer["reason"] = str(error).strip().splitlines()[0]
    return answer


def _cuda_device(number: int) -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(number)
    device = {"device": f"cuda:{number}", "name": facts.name, "compute": f"{facts.major}.{facts.minor}"}
    device = _computed(device)
    if not device.get("error"):
        free, total = torch.cuda.mem_get_info(number)
        device |= {"free": free, "total": total, "bf16": torch.cuda.is_bf16_supported()}
    return device


def _computed(device: dict[str, Any]) -> dict[str, Any]:
    """The device with the error that a small product raises there: a torch may know a card and have no code for it."""
    import torch

    try:
        ones = torch.ones(8, 8, device=device["device"])
        (ones @ ones).sum().item()
    except Exception as error:
        return device | {"error": str(error).strip().splitlines()[0]}
    return device


if __name__ == "__main__":
    main()
