"""All kinds of captioners, and which of them opens a folder."""

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
"""A new captioner is a file of its own and a line here."""

OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.gguf", "*.msgpack", "*.h5")


def open_captioner(folder: Path) -> Captioner:
    """The captioner for a folder, decided by its config.json. Nothing is loaded yet.

    Raises:
        CrucibleError: the folder is incomplete, of a kind that is not known, or would need a hub's code.
    """
    config = _read_config(folder)
    kind = next((kind for kind in KINDS if kind.opens(config)), None)
    if config.get("model_type") == "florence2" and "auto_map" in config:
        raise CrucibleError(
            f"The captioner in {folder} is a Florence-2 in the form that runs program code from its repository, and "
            "such code is never run here. Take the same model in the form that transformers knows: "
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
            "folder that config.json, model.safetensors and the tokenizer's files lie in."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        config = error
    if not isinstance(config, dict):
        raise CrucibleError(
            f"{path} cannot be read ({config if isinstance(config, Exception) else 'it holds no settings'}), so the "
            "kind of the captioner is not known. Fetch the file anew."
        )
    return config


def _unknown(folder: Path, config: dict[str, Any]) -> CrucibleError:
    named = config.get("architectures") or [config.get("architecture") or config.get("model_type") or "unnamed"]
    supported = "\n".join(f"  {kind.supported}" for kind in KINDS)
    code = " It would need program code from its repository, which is never run here." if "auto_map" in config else ""
    return CrucibleError(
        f"The model in {folder} is {named[0]}, which cannot write captions here.{code} These can:\n{supported}\n"
        "Choose one of them."
    )


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(path.name for pattern in OTHER_WEIGHTS for path in folder.glob(pattern))
    found = f"only {', '.join(others[:3])}, and such files can run code or are for other programs" if others else "none"
    raise CrucibleError(
        f"The captioner in {folder} needs its weights as model.safetensors, and there is {found}. Fetch "
        "model.safetensors from where the model comes from, or choose another captioner."
    )
