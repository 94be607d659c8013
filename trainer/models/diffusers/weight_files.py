"""The names of weights in diffusers folders."""

from __future__ import annotations

import re

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?!safetensors)(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?\.safetensors"
    r"|(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<of_index>\w+))?\.json"
)


def variant_of(name: str) -> str | None:
    """Return the variant that a file of a part's weights is of, such as "fp16".

    Args:
        name: the name of the file, without folders.

    Returns:
        The variant, "" for the ordinary weights, or None for a file that holds no weights and lists none.
    """
    match = _WEIGHTS.fullmatch(name)
    return None if match is None else match["variant"] or match["of_index"] or ""
