"""Folders in the form of PEFT, which hold a LoRA as adapter_model.safetensors beside adapter_config.json."""

from __future__ import annotations

from pathlib import Path

from ..errors import CrucibleError
from ..messages.wording import listed
from .foreign_states import foreign_state

WEIGHTS = "adapter_model.safetensors"


def lora_path(path: Path) -> Path:
    """Return the file of a LoRA that a user names by its file or its folder.

    Raises:
        CrucibleError: it is a folder without a LoRA in safetensors.
    """
    path = path.expanduser()
    if not path.is_dir():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if (pickle := path / "adapter_model.bin").is_file():
        raise CrucibleError(
            f"{path} has its LoRA in {pickle.name}, a pickle, which can run code when it is opened, so it is not read. "
            "Convert it once, in a mode that runs no code:\n  "
            'python -c "import sys, torch, safetensors.torch as s; d = sys.argv[1]; '
            "s.save_file(torch.load(d + '/adapter_model.bin', weights_only=True), d + '/adapter_model.safetensors')\" "
            f'"{path}"'
        )
    if (foreign := foreign_state(path)) is not None:
        advice = f"Name its LoRA itself: {foreign.lora}." if foreign.lora else "It has no LoRA in safetensors."
        raise CrucibleError(f"{path} is {foreign.what}, which is no LoRA but a folder of several files. {advice}")
    names = sorted(one.name for one in path.iterdir())
    raise CrucibleError(
        f"{path} is a folder without {WEIGHTS}, so there is no LoRA in it (it has "
        f"{listed(names) if names else 'no files'}). Name the file of the LoRA, or a folder that PEFT wrote."
    )


def lora_name(path: Path) -> str:
    """Return the name of a LoRA, without ending: that of its file, of its folder if the file has PEFT's name, or of its
    run if the folder is the one that runs write."""
    if path.name != WEIGHTS:
        return path.stem
    folder = path.absolute().parent
    return folder.parent.name if folder.name == "adapter" and folder.parent.name else folder.name or path.stem
