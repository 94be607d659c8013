"""Checking that a written adapter has the layers of the model that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...errors import CrucibleError
from ...formats.names import Place
from ...messages.wording import listed

_WEIGHTS = "adapter_model.safetensors"
_PARTS = (".lora_", ".hada_", ".lokr_", ".alpha", ".dora_scale", ".diff")


def require_known_layers(
    path: Path, layers: int, place_of: Callable[[str], Place | None], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that each layer of a written adapter is one of the model's, and that all are there.

    Args:
        path: a safetensors file, or a folder in PEFT's format.
        layers: the number of layers that were saved.
        place_of: a function from the name of a layer in a file to its place in the model.
        shapes: the weight shape of each of the model's layers.

    Raises:
        CrucibleError: the file cannot be read, or its layers are not those of the model.
    """
    file = path / _WEIGHTS if path.is_dir() else path
    try:
        with safe_open(file, "pt") as opened:
            names = {_layer(key) for key in opened.keys()}  # noqa: SIM118 - it is not a dictionary
    except (SafetensorError, OSError) as error:
        raise CrucibleError(
            f"The adapter {file} that was just written cannot be read ({error}). The disk may be full or failing: free "
            "some space and save again."
        ) from error
    found = {place.key for name in names if (place := place_of(name)) is not None and place.key in shapes}
    unknown = sorted(name for name in names if place_of(name) is None)
    if unknown or len(found) != layers:
        raise CrucibleError(
            f"The adapter {file} was saved with {len(found)} of its {layers} layers, and {len(unknown)} of its names "
            f"are not those of the model{': ' + listed(unknown) if unknown else ''}. Used as it is, it would have less "
            "effect than it was trained to have. Please report this with the name of the base model."
        )


def _layer(key: str) -> str:
    """Return the name of the layer that a key of a file belongs to."""
    return key[: min((place for part in _PARTS if (place := key.find(part)) > 0), default=len(key))]
