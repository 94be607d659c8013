"""All kinds of captioners, and the choice of the one that opens a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CrucibleError
from .base import Captioner
from .blip import BlipCaptioner
from .chat import ChatCaptioner
from .florence import FlorenceCaptioner
from .tagger import TaggerCaptioner

KINDS: tuple[type[Captioner], ...] = (FlorenceCaptioner, BlipCaptioner, ChatCaptioner, TaggerCaptioner)
"""The kinds of captioners, in the order in which they are tried. A new kind takes a module and an entry here."""

OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.gguf", "*.msgpack", "*.h5")
"""Patterns of weight files that are never loaded; an error names those that it finds."""


def open_captioner(folder: Path) -> Captioner:
    """Return the captioner for a folder, chosen by its config.json, without loading the model.

    Raises:
        CrucibleError: the folder is incomplete, or its model is of an unknown kind or needs code from its repository.
    """
    config = _read_config(folder)
    kind = next((kind for kind in KINDS if kind.opens(config)), None)
    if config.get("model_type") == "florence2" and "auto_map" in config:
        raise CrucibleError(
            f"The captioner in {folder} is a version of Florence-2 that needs program code from its repository, and "
            "such code is never run here. Use the version of the same model that transformers supports itself: "
            "florence-community/Florence-2-base, -large, -base-ft or -large-ft on the Hugging Face hub."
        )
    if kind is None:
        raise _unknown(folder, config)
    _check_weights(folder)
    return kind(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CrucibleError(
            f"{folder} is not a captioner: it has no config.json, which says what kind of model it is. Choose the "
            "folder that contains config.json, model.safetensors and the tokenizer files."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        config = error
    if not isinstance(config, dict):
        raise CrucibleError(
            f"{path} cannot be read ({config if isinstance(config, Exception) else 'it contains no settings'}), so the "
            "kind of captioner is unknown. Download the file again."
        )
    return config


def _unknown(folder: Path, config: dict[str, Any]) -> CrucibleError:
    named = config.get("architectures") or [config.get("architecture") or config.get("model_type") or "unnamed"]
    supported = "\n".join(f"  {kind.supported}" for kind in KINDS)
    code = " It needs program code from its repository, which is never run here." if "auto_map" in config else ""
    return CrucibleError(
        f"The model in {folder} is {named[0]}, which is not supported as a captioner.{code} Supported models:\n"
        f"{supported}\nChoose one of them."
    )


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(path.name for pattern in OTHER_WEIGHTS for path in folder.glob(pattern))
    found = (
        f"only {', '.join(others[:3])} (such files can run code, or are for other programs)"
        if others
        else "no weights at all"
    )
    raise CrucibleError(
        f"The captioner in {folder} needs its weights as model.safetensors, but the folder has {found}. Download "
        "model.safetensors from the model's repository, or choose another captioner."
    )
