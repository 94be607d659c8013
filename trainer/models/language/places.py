"""The layers of a language model by the names that LoRA files of any program give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ...formats.names import Place

_PREFIXES = re.compile(r"^(base_model\.model\.|text_encoders\.([a-z0-9_]+\.)?transformer\.|lora_te_)")
"""The starts of layer names in the files of peft, of ComfyUI, and in memory."""


def place_finder(keys: Iterable[str]) -> Callable[[str], Place | None]:
    """Return a function from the name of a layer in a file to its place, or None where the model has no such layer.

    Args:
        keys: the keys in memory of the layers that can have an adapter.
    """
    known = {_plain(key): Place(key) for key in keys}
    return lambda name: known.get(_plain(name))


def _plain(name: str) -> str:
    """Return a layer's name without what only some programs write: with underscores, and without the start and the
    wrapper that models with a vision tower have."""
    return _PREFIXES.sub("", name).replace(".", "_").replace("model_language_model_", "model_")
