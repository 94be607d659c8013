"""A script, started by `probing.py` in a separate process, that loads packages and asks them about the machine.

A broken package can end or hang the process that loads it. The script reads its steps as JSON from stdin and writes a
line of JSON to stdout before and after each step, so that the waiting process knows in which step it ended.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

PROCESSES = 3
"""The number of processes that are named, those with the most memory."""


def main() -> None:
    """Run the steps from stdin and write their answers to stdout."""
    # Packages may print to stdout, so it is redirected to stderr: only this script's lines reach the reader.
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
    except BaseException as raised:  # importing a package may raise anything, even SystemExit
        error = raised
        while error.__cause__ is not None:  # packages that load parts on first use wrap the real error
            error = error.__cause__
        text = str(error).strip().splitlines()
        absent = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        return {
            "error": f"{type(error).__name__}: {text[0]}" if text else type(error).__name__,
            "absent": absent if absent and find_spec(absent) is None else "",
        }


def load(name: str, module: str, attribute: str) -> dict[str, Any]:
    """Import a module and, if given, get its `attribute`, which makes packages load parts that they load on first use.

    Returns:
        The module's version.
    """
    loaded = import_module(module)
    if attribute:
        getattr(loaded, attribute)
    return {"version": str(getattr(loaded, "__version__", ""))}


def memory() -> dict[str, Any]:
    """Return the host's memory in bytes, and the largest processes as (resident bytes, name, process id)."""
    import psutil

    whole = psutil.virtual_memory()
    processes = []
    for process in psutil.process_iter(["pid", "name", "memory_info"]):
        facts = process.info
        if facts["memory_info"] is not None and facts["pid"] not in (os.getpid(), os.getppid()):
            processes.append((facts["memory_info"].rss, facts["name"] or "?", facts["pid"]))
    return {"total": whole.total, "free": whole.available, "processes": sorted(processes, reverse=True)[:PROCESSES]}


def devices() -> dict[str, Any]:
    """Return torch's build, the devices that it sees, and the reason if a graphics card cannot be used."""
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
    device: dict[str, Any] = {"device": f"cuda:{number}", "name": facts.name, "compute": f"{facts.major}.{facts.minor}"}
    device = _computed(device)
    if not device.get("error"):
        free, total = torch.cuda.mem_get_info(number)
        device |= {"free": free, "total": total, "bf16": torch.cuda.is_bf16_supported()}
    return device


def _computed(device: dict[str, Any]) -> dict[str, Any]:
    """Return the device with the error, if any, that a small matrix product raises there.

    torch may list a card that it has no code for.
    """
    import torch

    try:
        ones = torch.ones(8, 8, device=device["device"])
        (ones @ ones).sum().item()
    except Exception as error:
        return device | {"error": str(error).strip().splitlines()[0]}
    return device


if __name__ == "__main__":
    main()
