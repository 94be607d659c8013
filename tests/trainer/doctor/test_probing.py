"""Tests that packages that break the process that loads them are distinguished from those that work."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.doctor import probing
from lora_crucible.doctor.probing import Step, probe

MODULES = {
    "sound": "__version__ = '1.5'",
    "chatty": "print('hello'); import os; os.write(1, b'{')",
    "raising": "raise OSError('libfoo.so: cannot open\\nmore')",
    "lazy": """
def __getattr__(name):
    try:
        import raising
    except OSError as error:
        raise RuntimeError(name) from error
""",
    "lacking": "import tokenizers_of_nobody.core",
    "leaving": "import sys; sys.exit('no')",
    "dying": "import os; os._exit(7)",
    "hanging": "import time; time.sleep(600)",
}

TORCH = """
from types import SimpleNamespace

version = SimpleNamespace(cuda="12.8", hip=None)


class Ones:
    def __init__(self, *shape, device):
        self.device = device

    def __matmul__(self, other):
        if self.device == "cuda:1":
            raise RuntimeError("CUDA error: no kernel image is available\\nCompile with ...")
        return self

    def sum(self):
        return self

    def item(self):
        return 512.0


ones = Ones
cuda = SimpleNamespace(
    is_available=lambda: True,
    device_count=lambda: 2,
    get_device_properties=lambda number: SimpleNamespace(name=f"Card {number}", major=8, minor=6),
    mem_get_info=lambda number: (4, 24),
    is_bf16_supported=lambda: True,
)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in MODULES.items():
        (tmp_path / f"made_{name}.py").write_text(code.replace("import raising", "import made_raising"))
    monkeypatch.syspath_prepend(tmp_path)


def load(name: str, attribute: str = "") -> Step:
    return Step(name, f"made_{name}", attribute)


def test_every_step_gets_its_answer_whatever_the_others_do():
    names = ["sound", "chatty", "raising", "lacking", "leaving", "dying"]
    answers = probe([*map(load, names), load("lazy", "Part"), Step("memory")])
    assert answers["sound"] == {"version": "1.5"}
    assert "error" not in answers["chatty"]
    assert answers["raising"] == {"error": "OSError: libfoo.so: cannot open", "absent": ""}
    assert answers["lacking"]["absent"] == "tokenizers_of_nobody"
    assert answers["leaving"]["error"] == "SystemExit: no"
    assert "ends the process" in answers["dying"]["error"]
    assert "7" in answers["dying"]["error"]
    assert answers["lazy"]["error"] == answers["raising"]["error"]  # the cause, not the error that wraps it
    assert answers["memory"]["total"] > answers["memory"]["free"] > 0
    assert 0 < len(answers["memory"]["processes"]) <= 3


def test_a_package_that_hangs_is_named_and_nothing_after_it_tried(monkeypatch: pytest.MonkeyPatch):
    for seconds in (1, 4, 16, 64):  # a busy machine takes long to come as far as that
        monkeypatch.setattr(probing, "SECONDS", seconds)
        answers = probe([load("sound"), load("hanging"), load("chatty")])
        if "hanging" in answers:
            break
    assert answers["sound"] == {"version": "1.5"}
    assert answers["hanging"]["error"].startswith("hangs")
    assert "chatty" not in answers


def test_a_python_that_cannot_be_started_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probing.sys, "executable", "/nowhere/python")
    assert "could not be started" in probe([load("sound")])["sound"]["error"]


def test_each_device_is_asked_and_tried(tmp_path: Path):
    (tmp_path / "torch.py").write_text(TORCH)
    devices = probe([Step("devices")])["devices"]
    assert devices["cuda"] == "12.8"
    assert devices["devices"] == [
        {"device": "cuda:0", "name": "Card 0", "compute": "8.6", "free": 4, "total": 24, "bf16": True},
        {"device": "cuda:1", "name": "Card 1", "compute": "8.6", "error": "CUDA error: no kernel image is available"},
    ]
