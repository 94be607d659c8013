"""The files of a pipeline: which are weights, in which variant, and which of a repository's are needed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection

INDEX = "model_index.json"
"""The file that makes a folder a pipeline of diffusers."""

_PARTS = ("unet", "transformer", "vae", "text_encoder", "tokenizer", "scheduler", "feature_extractor")
"""The starts of the names of the folders that a pipeline for training needs."""

_WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder")
_SMALL = (".json", ".txt", ".model", ".jinja")

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


def wanted_files(names: Collection[str]) -> list[str]:
    """Return the files of a repository that a pipeline needs: its configs and tokenizers, and one set of weights in
    safetensors for each of its parts.

    The ordinary weights are chosen if there are any, else those in float16 or another variant.

    Args:
        names: the names of all files.

    Returns:
        The names of the files; none if this is no pipeline of diffusers or a part has no weights in safetensors.
    """
    if INDEX not in names:
        return []
    small = [INDEX]
    weights: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    parts = set()
    for name in names:
        part, _, file = name.partition("/")
        if not file or "/" in file or not part.startswith(_PARTS):
            continue
        if part.startswith(_WITH_WEIGHTS):
            parts.add(part)
        variant = variant_of(file)
        if variant is not None:
            weights[part][variant].append(name)
        elif is_small_file(name):
            small.append(name)
    chosen = {part: min(_whole(weights[part]), default=None) for part in parts}
    if not parts or None in chosen.values():
        return []
    return small + [name for part, variant in chosen.items() if variant is not None for name in weights[part][variant]]


def is_small_file(name: str) -> bool:
    """Return whether a file of a repository is a config, or of a tokenizer, of a part that a pipeline needs."""
    part, _, file = name.partition("/")
    if not file:
        return name == INDEX
    is_index = file.endswith((".bin.index.json", ".msgpack.index.json")) or variant_of(file) is not None
    return "/" not in file and part.startswith(_PARTS) and file.endswith(_SMALL) and not is_index


def _whole(variants: dict[str, list[str]]) -> list[str]:
    """Return the variants that have weights, and not only an index of them."""
    return [variant for variant, names in variants.items() if any(name.endswith(".safetensors") for name in names)]
