"""The hash by which LoRAs know the language model that they were trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from ..identity import weights_hash


def model_identity(folder: Path, tensors: Iterable[tuple[str, Tensor]], *, in_4bit: bool = False) -> str:
    """Return the hash of a language model's weights and config.

    Args:
        folder: the folder with its config.json.
        tensors: the weights in its files, by name.
        in_4bit: whether the weights are held in 4 bits while training.
    """
    config = (folder / "config.json").read_text(encoding="utf-8")
    return weights_hash(tensors, [config, "nf4" if in_4bit else ""])
