"""Tests that missing, outdated and broken packages are each reported once and with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from lora_crucible.captioners.base import OPTIONAL_PACKAGES
from lora_crucible.config import SETTINGS
from lora_crucible.doctor import packages, requirements
from lora_crucible.doctor.packages import OPTIONAL, examine_optional_packages, examine_packages, loading_steps
from lora_crucible.doctor.requirements import MATPLOTLIB, REQUIRED, TORCH

CPU = {"cuda": None, "rocm": None, "devices": [], "reason": ""}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Return the versions of all packages, all new enough; tests remove some or make them old.

    A version of None stands for a damaged package, of which only pip's record is left.
    """
    versions: dict[str, str | None] = {one.package: "99.0" for one in (*REQUIRED, TORCH, MATPLOTLIB)}
    modules = {one.module: one.package for one in (*REQUIRED, TORCH, MATPLOTLIB)}

    def version(name: str) -> str:
        if name not in versions:
            raise requirements.PackageNotFoundError(name)
        return versions[name] or "99.0"

    monkeypatch.setattr(requirements, "version", version)
    monkeypatch.setattr(requirements, "find_spec", lambda module: versions.get(modules[module]) and object())
    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    return versions


def answers(there: dict[str, str | None], **errors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    sound: dict[str, dict[str, Any]] = {name: {"version": version} for name, version in there.items() if version}
    return sound | {"devices": CPU} | errors


def test_all_is_well(there: dict[str, str | None]):
    section = examine_packages(answers(there), standalone=True)
    assert section.obstacles == []
    assert ("peft", "99.0") in section.rows
    assert ("torch", "99.0, built without CUDA") in section.rows


def test_one_command_mends_all_that_is_missing_or_too_old(there: dict[str, str | None]):
    del there["peft"]
    there["diffusers"] = "0.20.1"
    absent = {"error": "ModuleNotFoundError: No module named 'tokenizers'", "absent": "tokenizers"}
    section = examine_packages(answers(there, transformers=absent), standalone=False)
    (obstacle,) = section.obstacles
    for words in (
        "peft, which is not installed",
        "diffusers 0.33 or newer, but 0.20.1 is installed",
        "tokenizers, which transformers imports",
    ):
        assert words in obstacle.text
    assert "requirements.txt" in obstacle.command
    assert ("peft", "not installed") in section.rows


def test_torch_is_left_to_comfyui(there: dict[str, str | None]):
    del there["torch"]
    absent = {"error": "ModuleNotFoundError: No module named 'torch'", "absent": "torch"}
    told = answers(there, peft=absent, accelerate=absent, devices=absent)
    (obstacle,) = examine_packages(told, standalone=False).obstacles
    assert "torch, which is not installed" in obstacle.text
    assert obstacle.command == ""
    (obstacle,) = examine_packages(told, standalone=True).obstacles
    assert "[standalone]" in obstacle.command


def test_what_breaks_everything_is_named_once(there: dict[str, str | None]):
    broken = {"error": "OSError: libcudart.so.12: cannot open shared object file", "absent": ""}
    told = answers(there, torch=broken, peft=broken, diffusers=broken, accelerate=broken, devices=broken)
    section = examine_packages(told, standalone=True)
    (obstacle,) = section.obstacles
    assert "torch is installed but cannot be loaded (OSError: libcudart.so.12" in obstacle.text
    assert "pytorch.org" in obstacle.text
    assert dict(section.rows)["peft"].startswith("99.0, cannot be loaded: OSError")


def test_a_broken_package_is_reinstalled_without_what_it_needs(there: dict[str, str | None]):
    there["safetensors"] = None
    broken = {"error": "ImportError: cannot import name 'x'", "absent": ""}
    section = examine_packages(answers(there, diffusers=broken), standalone=True)
    commands = sorted(obstacle.command.split("-m ")[1] for obstacle in section.obstacles)
    assert commands == [
        'pip install --force-reinstall --no-deps "diffusers>=0.33"',
        'pip install --force-reinstall --no-deps "safetensors>=0.4.3"',
    ]
    assert ("safetensors", "its files are missing") in section.rows


def test_a_package_comes_after_what_it_needs(there: dict[str, str | None]):
    order = [step.name for step in loading_steps()]
    for early, late in (("torch", "safetensors"), ("torch", "transformers"), ("transformers", "accelerate")):
        assert order.index(early) < order.index(late)
    assert order.index("accelerate") < order.index("peft")


def test_optional_packages_say_what_they_add(there: dict[str, str | None]):
    section = examine_optional_packages(
        {"timm": {"version": "1.0"}, "bitsandbytes": {"error": "RuntimeError: no CUDA", "absent": ""}}, standalone=True
    )
    rows = dict(section.rows)
    assert rows["lion-pytorch"].split() == ["-", "optimizer", "lion"]
    assert rows["timm"].split()[0] == "installed"
    assert rows["bitsandbytes"].split()[0] == "broken"
    (note,) = section.notes
    assert "RuntimeError: no CUDA" in note.text
    assert section.obstacles == []
    assert "matplotlib" in dict(examine_optional_packages({}, standalone=False).rows)


def test_every_package_that_is_offered_is_explained():
    offered = {package for setting in SETTINGS.values() for _, package in setting.packages} | set(OPTIONAL_PACKAGES)
    assert {"lion-pytorch", "timm"} <= offered <= {optional.package for optional in OPTIONAL}
