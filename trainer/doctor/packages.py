"""Examination of packages: which are installed, which cannot be loaded, and what the missing ones would add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from .page import Advice, Section
from .probing import Step
from .requirements import (
    MATPLOTLIB,
    REQUIRED,
    STANDALONE,
    TORCH,
    Requirement,
    install_command,
    installed_version,
    lacks_text,
    pip_command,
)

PARTS = {"diffusers": "StableDiffusionPipeline", "transformers": "CLIPTextModel"}
"""For each package that loads its parts on first use, a part that needs all the others."""

GONE = "its files are missing"
"""The error of a package that pip lists as installed but that cannot be found."""

GET_TORCH = "https://pytorch.org/get-started/locally/"
"""The page with the commands that install torch."""


@dataclass(frozen=True)
class OptionalPackage:
    """A package that is not required.

    Attributes:
        package: the name by which pip knows it.
        adds: what can be used once it is installed.
    """

    package: str
    adds: str

    @property
    def module(self) -> str:
        """The name by which the package is imported."""
        return self.package.replace("-", "_")


OPTIONAL = (
    OptionalPackage("bitsandbytes", "language models in 4 bits; optimizer adamw_8bit, on NVIDIA cards"),
    OptionalPackage("lion-pytorch", "optimizer lion"),
    OptionalPackage("prodigyopt", "optimizer prodigy, which finds the learning rate"),
    OptionalPackage("schedulefree", "optimizer schedule_free_adamw"),
    OptionalPackage("tensorboard", "curves of every run in TensorBoard"),
    OptionalPackage("torchvision", "captions by Qwen-VL and SmolVLM"),
    OptionalPackage("num2words", "captions by SmolVLM"),
    OptionalPackage("timm", "captions by taggers"),
)
"""The optional packages that the report lists."""

PLOTS = OptionalPackage(MATPLOTLIB.package, "plots of the loss; required on the command line")
"""matplotlib, which is optional inside ComfyUI and required outside it."""


def loading_steps() -> list[Step]:
    """Return the imports to try, one for each installed package, each after the packages that it needs."""
    required = sorted(
        (TORCH, *REQUIRED, MATPLOTLIB), key=lambda one: one.package in ("accelerate", "diffusers", "peft")
    )
    there = [Step(one.package, one.module, PARTS.get(one.module, "")) for one in required if one.is_there]
    return there + [Step(one.package, one.module) for one in OPTIONAL if find_spec(one.module) is not None]


def examine_packages(answers: Mapping[str, Mapping[str, Any]], *, standalone: bool) -> Section:
    """Examine the required packages: their versions, and which are missing, too old or broken.

    Args:
        answers: the probe's answers to `loading_steps`.
        standalone: whether training is to run without ComfyUI, which would install torch itself.
    """
    section = Section("Packages")
    wanted = (TORCH, *REQUIRED, MATPLOTLIB) if standalone else (TORCH, *REQUIRED)
    for requirement in sorted(wanted, key=lambda one: one.package.lower()):
        section.rows.append((requirement.package, _state(requirement, answers)))
    section.obstacles += _lacking(wanted, answers, standalone=standalone)
    section.obstacles += _broken(wanted, answers)
    return section


def examine_optional_packages(answers: Mapping[str, Mapping[str, Any]], *, standalone: bool) -> Section:
    """Examine the optional packages, with the same arguments as `examine_packages`."""
    section = Section("Optional packages, and what they add")
    for optional in OPTIONAL if standalone else (PLOTS, *OPTIONAL):
        answer = answers.get(optional.package)
        state = "-"
        if answer is not None:
            state = "broken" if answer.get("error") else installed_version(optional.package) or "installed"
        section.rows.append((optional.package, f"{state:<9} {optional.adds}"))
        if answer is not None and answer.get("error"):
            section.notes.append(
                Advice(
                    f"{optional.package} is installed but cannot be loaded ({answer['error']}), so this would fail "
                    f"when used: {optional.adds}. Reinstall or uninstall it."
                )
            )
    return section


def _state(requirement: Requirement, answers: Mapping[str, Mapping[str, Any]]) -> str:
    if not requirement.is_there:
        return GONE if _is_gutted(requirement) else "not installed"
    answer = answers.get(requirement.package, {})
    version = installed_version(requirement.package) or answer.get("version") or "version unknown"
    if requirement.package == "torch" and "error" not in answer:
        version += f", {_build(answers.get('devices', {'error': 'not examined'}))}"
    if requirement.is_too_old:
        version += f", too old: {requirement.minimum} or newer is needed"
    return f"{version}, cannot be loaded: {answer['error']}" if answer.get("error") else version


def _is_gutted(requirement: Requirement) -> bool:
    """Return whether pip lists a package as installed, and so would not install it, but it cannot be found."""
    return not requirement.is_there and installed_version(requirement.package) is not None


def _build(devices: Mapping[str, Any]) -> str:
    if "error" in devices:
        return f"cannot list its devices: {devices['error']}"
    if devices.get("cuda"):
        return f"built for CUDA {devices['cuda']}"
    return f"built for ROCm {devices['rocm']}" if devices.get("rocm") else "built without CUDA"


def _lacking(
    wanted: Sequence[Requirement], answers: Mapping[str, Mapping[str, Any]], *, standalone: bool
) -> list[Advice]:
    """Return the obstacles for missing and outdated packages.

    All of them are one obstacle with one command, except for torch if the command leaves it alone.
    """
    by_command = [one for one in wanted if standalone or one not in STANDALONE]
    found = lacks_text([one for one in by_command if not _is_gutted(one)])
    lacks = [found] if found else []
    modules = {one.module for one in wanted}
    for one in by_command:  # pip also installs what these packages depend on
        absent = answers.get(one.package, {}).get("absent")
        if absent and absent not in modules:
            lacks.append(f"{absent}, which {one.package} imports")
    obstacles = []
    lack_of_torch = lacks_text([TORCH])
    if lack_of_torch and TORCH not in by_command and not _is_gutted(TORCH):
        obstacles.append(
            Advice(
                f"LoRA Crucible needs {lack_of_torch}. ComfyUI needs it too: install it as ComfyUI's manual says, or "
                f"with the command that this page gives for your computer: {GET_TORCH}"
            )
        )
    if lacks:
        command = install_command(standalone=standalone)
        obstacles.append(Advice(f"LoRA Crucible needs {'; '.join(dict.fromkeys(lacks))}. Install with:", command))
    return obstacles


def _broken(wanted: Sequence[Requirement], answers: Mapping[str, Mapping[str, Any]]) -> list[Advice]:
    """Return the obstacles for packages that fail by themselves, not because of a missing or an earlier broken one."""
    order = [step.name for step in loading_steps()]
    obstacles, seen = [], set()
    for one in sorted(wanted, key=lambda one: order.index(one.package) if one.package in order else -1):
        answer = answers.get(one.package, {})
        error = GONE if _is_gutted(one) else answer.get("error")
        if not error or answer.get("absent") or error in seen:
            continue
        if error != GONE:
            seen.add(error)
        if one.is_too_old:
            continue
        text = f"{one.package} is installed but cannot be loaded ({error}), so nothing can be trained."
        if one == TORCH:
            text += f" Reinstall it with the command that this page gives for your computer: {GET_TORCH}"
            obstacles.append(Advice(text))
        else:
            # Without --no-deps, pip would also replace torch.
            reinstall = f'--force-reinstall --no-deps "{one.specifier}"'
            obstacles.append(Advice(f"{text} Reinstall it with:", pip_command(reinstall)))
    return obstacles
