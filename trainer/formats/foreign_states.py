"""States of training in other programs, called by their names, with the LoRA in them that can be carried over.

They are told apart by the names of files alone; nothing in them is opened, because most are pickles.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")

_STEPS = re.compile(r"(-\d{6}|-step\d+)?-state$")
"""The end of the name of kohya's folders: of an epoch, of a step, or of the end of the run."""


@dataclass(frozen=True)
class ForeignState:
    """A state that another program saved.

    Attributes:
        what: what it is, as a phrase that follows "it is".
        lora: the file of its LoRA, if there is one; "" if there is none that can be read.
    """

    what: str
    lora: str = ""

    @property
    def advice(self) -> str:
        """What can be carried over, as a sentence or two."""
        if self.lora:
            return (
                f"What can be carried over is its LoRA: set continue_from to {self.lora}, and leave "
                "resume_from_checkpoint out. Optimizer and schedule then start anew."
            )
        return (
            "What can be carried over is its LoRA: look for its .safetensors file, set continue_from to it, and leave "
            "resume_from_checkpoint out. Optimizer and schedule then start anew."
        )


def foreign_state(path: Path) -> ForeignState | None:
    """Return what another program saved under a path; None if it is nothing that is known."""
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        return None
    names = {one.name for one in path.iterdir()}
    for fits, what, find in _FOLDERS:
        if fits(names, path):
            return ForeignState(what, find(path))
    return None


def _of_file(path: Path) -> ForeignState | None:
    beside = _newest(path.parent, "*.safetensors")
    if path.suffix.lower() == ".ckpt":
        return ForeignState("a checkpoint of PyTorch Lightning or of an old trainer (a pickle)", beside)
    if path.name in ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin"):
        return foreign_state(path.parent) or ForeignState("the optimizer of another program (a pickle)", beside)
    if path.suffix.lower() in _PICKLES:
        return ForeignState("a pickle of another program", beside)
    if path.suffix.lower() == ".safetensors":
        return ForeignState("a file of weights, without an optimizer", str(path))
    return None


def _newest(folder: Path, pattern: str) -> str:
    """Return the newest file that fits, by name; "" if there is none."""
    found = sorted(one for one in folder.glob(pattern) if one.is_file())
    return str(found[-1]) if found else ""


def _of_kohya(folder: Path) -> str:
    """Return the LoRA that kohya's trainer saved with a state: beside it, or else in it."""
    saved = folder.with_name(f"{folder.name.removesuffix('-state')}.safetensors")
    if saved.is_file():
        return str(saved)
    stem = _STEPS.sub("", folder.name)
    return _newest(folder.parent, f"{stem}*.safetensors") or _newest(folder, "*.safetensors")


def _in_it(*patterns: str) -> Callable[[Path], str]:
    return lambda folder: next(filter(None, (_newest(folder, pattern) for pattern in patterns)), "")


_FOLDERS: tuple[tuple[Callable[[set[str], Path], bool], str, Callable[[Path], str]], ...] = (
    (
        lambda names, path: "optimizer.bin" in names and ("train_state.json" in names or path.name.endswith("-state")),
        "a state of kohya's sd-scripts or musubi-tuner",
        _of_kohya,
    ),
    (
        lambda names, path: "training_state.json" in names and "optimizer.bin" in names,
        "a checkpoint of SimpleTuner",
        _in_it("pytorch_lora_weights.safetensors", "*.safetensors"),
    ),
    (
        lambda names, path: "trainer_state.json" in names,
        "a checkpoint of transformers' Trainer, as TRL, axolotl and LLaMA-Factory write it",
        _in_it("adapter_model.safetensors"),
    ),
    (
        lambda names, path: any(name.startswith("zero_to_fp32") or name.startswith("global_step") for name in names),
        "a checkpoint of DeepSpeed, as diffusion-pipe writes it",
        _in_it("adapter_model.safetensors", "*/adapter_model.safetensors", "*.safetensors"),
    ),
    (
        lambda names, path: "optimizer.bin" in names or any(name.startswith("random_states_") for name in names),
        "a checkpoint of accelerate, as diffusers' scripts write it",
        _in_it("pytorch_lora_weights.safetensors", "*.safetensors"),
    ),
    (
        lambda names, path: "meta.json" in names and ("optimizer" in names or "lora" in names),
        "a backup of OneTrainer",
        _in_it("lora/*.safetensors", "*.safetensors"),
    ),
    (
        lambda names, path: "optimizer.pt" in names,
        "a folder of ai-toolkit",
        _in_it("*.safetensors"),
    ),
)
"""How the folder of each program is recognized by the names in it, what it is called, and where its LoRA is."""
