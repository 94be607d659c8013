"""Which packages are there, which cannot be loaded, and what those that are not would add."""

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
"""Of packages that load their parts when they are first used: one that needs all the rest."""

GONE = "its files are gone"

GET_TORCH = "https://pytorch.org/get-started/locally/"


@dataclass(frozen=True)
class OptionalPackage:
    """A package that nothing needs, by the name pip knows, and what it `adds`."""

    package: str
    adds: str

    @property
    def module(self) -> str:
        return self.package.replace("-", "_")


OPTIONAL = (
    OptionalPackage("bitsandbytes", "optimizer adamw_8bit, on NVIDIA cards"),
    OptionalPackage("lion-pytorch", "optimizer lion"),
    OptionalPackage("prodigyopt", "optimizer prodigy, finds the learning rate"),
    OptionalPackage("schedulefree", "optimizer schedule_free_adamw"),
    OptionalPackage("tensorboard", "curves of every run in TensorBoard"),
    OptionalPackage("torchvision", "captions by Qwen-VL and SmolVLM"),
    OptionalPackage("num2words", "captions by SmolVLM"),
    OptionalPackage("timm", "captions by taggers"),
)
PLOTS = OptionalPackage(MATPLOTLIB.package, "plots of the loss; a must on the command line")
"""Needed without ComfyUI only."""


def loading_steps() -> list[Step]:
    """The imports to try: of each package that is there, in an order in which it comes after what it needs."""
    required = sorted(
        (TORCH, *REQUIRED, MATPLOTLIB), key=lambda one: one.package in ("accelerate", "diffusers", "peft")
    )
    there = [Step(one.package, one.module, PARTS.get(one.module, "")) for one in required if one.is_there]
    return there + [Step(one.package, one.module) for one in OPTIONAL if find_spec(one.module) is not None]


def examine_packages(answers: Mapping[str, Mapping[str, Any]], *, standalone: bool) -> Section:
    """
    Args:
        answers: to `loading_steps`.
        standalone: whether the training is to run without ComfyUI, which brings torch itself.
    """
    section = Section("Packages")
    wanted = (TORCH, *REQUIRED, MATPLOTLIB) if standalone else (TORCH, *REQUIRED)
    for requirement in sorted(wanted, key=lambda one: one.package.lower()):
        section.rows.append((requirement.package, _state(requirement, answers)))
    section.obstacles += _lacking(wanted, answers, standalone=standalone)
    section.obstacles += _broken(wanted, answers)
    return section


def examine_optional_packages(answers: Mapping[str, Mapping[str, Any]], *, standalone: bool) -> Section:
    section = Section("Optional packages, and what they add")
    for optional in OPTIONAL if standalone else (PLOTS, *OPTIONAL):
        answer = answers.get(optional.package)
        state = "-"
        if answer is not None:
            state = "broken" if answer.get("error") else installed_version(optional.package) or "there"
        section.rows.append((optional.package, f"{state:<9} {optional.adds}"))
        if answer is not None and answer.get("error"):
            section.notes.append(
                Advice(
                    f"{optional.package} is installed but cannot be loaded ({answer['error']}), so this fails when it "
                    f"is chosen: {optional.adds}. Reinstall or uninstall it."
                )
            )
    return section


def _state(requirement: Requirement, answers: Mapping[str, Mapping[str, Any]]) -> str:
    if not requirement.is_there:
        return GONE if _is_gutted(requirement) else "not installed"
    answer = answers.get(requirement.package, {})
    version = installed_version(requirement.package) or answer.get("version") or "version unknown"
    if requirement.package == "torch" and "error" not in answer:
        version += f", {_build(answers.get('devices', {'error': 'not asked'}))}"
    if requirement.is_too_old:
        version += f", too old: {requirement.minimum} or newer is needed"
    return f"{version}, cannot be loaded: {answer['error']}" if answer.get("error") else version


def _is_gutted(requirement: Requirement) -> bool:
    """Whether pip believes that a package is there and would install nothing, but it cannot be found."""
    return not requirement.is_there and installed_version(requirement.package) is not None


def _build(devices: Mapping[str, Any]) -> str:
    if "error" in devices:
        return f"fails to name its devices: {devices['error']}"
    if devices.get("cuda"):
        return f"built for CUDA {devices['cuda']}"
    return f"built for ROCm {devices['rocm']}" if devices.get("rocm") else "built without CUDA"


def _lacking(
    wanted: Sequence[Requirement], answers: Mapping[str, Mapping[str, Any]], *, standalone: bool
) -> list[Advice]:
    """What is missing or too old: one obstacle with one command, and one for a torch that the command leaves alone."""
    by_command = [one for one in wanted if standalone or one not in STANDALONE]
    found = lacks_text([one for one in by_command if not _is_gutted(one)])
    lacks = [found] if found else []
    modules = {one.module for one in wanted}
    for one in by_command:  # pip looks after what its packages need in turn
        absent = answers.get(one.package, {}).get("absent")
        if absent and absent not in modules:
            lacks.append(f"{absent}, which {one.package} looks for")
    obstacles = []
    lack_of_torch = lacks_text([TORCH])
    if lack_of_torch and TORCH not in by_command and not _is_gutted(TORCH):
        obstacles.append(
            Advice(
                f"LoRA Crucible needs {lack_of_torch}. ComfyUI does not start either: install what ComfyUI's manual "
                f"says, or get torch by the command that this page gives for your computer: {GET_TORCH}"
            )
        )
    if lacks:
        command = install_command(standalone=standalone)
        obstacles.append(Advice(f"LoRA Crucible needs {'; '.join(dict.fromkeys(lacks))}. Install with:", command))
    return obstacles


def _broken(wanted: Sequence[Requirement], answers: Mapping[str, Mapping[str, Any]]) -> list[Advice]:
    """Packages that fail by themselves, not over one that is missing or that has failed before them."""
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
            text += f" Reinstall it by the command that this page gives for your computer: {GET_TORCH}"
            obstacles.append(Advice(text))
        else:
            # Not its dependencies: pip would exchange torch too.
            reinstall = f'--force-reinstall --no-deps "{one.specifier}"'
            obstacles.append(Advice(f"{text} Reinstall it with:", pip_command(reinstall)))
    return obstacles
