"""Find the architecture that a LoRA's metadata names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .architectures import ARCHITECTURES

_KEYS = (
    "modelspec.architecture",
    "ss_base_model_version",
    "ss_base_model",
    "base_model",
    "baseModel",
    "base_model_name",
)
"""Where trainers put it: kohya's, musubi-tuner and ai-toolkit the first two, others the rest."""

_PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"flux[-_. ]?2|klein", ("flux2",)),
    (r"chroma", ("chroma",)),
    (r"flux|kontext", ("flux1",)),
    (r"qwen[-_ ]?image", ("qwen_image",)),
    (r"z[-_ ]?image", ("z_image",)),
    (r"lumina[-_ ]?(image[-_ ]?)?2|lumina$", ("lumina2",)),
    (r"stable[-_ ]diffusion[-_ ]?xl|sdxl|pony|illustrious|noobai", ("sdxl",)),
    (r"stable[-_ ]diffusion[-_ ]?3|sd[-_ ]?3", ("sd3",)),
    (r"stable[-_ ]diffusion[-_ ]v?2|sd[-_ ]?v?2(?!\d)", ("sd2", "sd2_v")),
    (r"stable[-_ ]diffusion[-_ ]v?1|sd[-_ ]?v?1(?!\d)", ("sd15",)),
    (r"aura[-_ ]?flow", ("auraflow",)),
    (r"pixart.*sigma", ("pixart_sigma",)),
    (r"pixart.*(alpha|\u03b1)", ("pixart_alpha",)),
    (r"hunyuan[-_ ]?dit", ("hunyuan_dit",)),
    (r"hunyuan[-_ ]?video(?![-_ ]?1[-_.]5)|framepack", ("hunyuan_video",)),
    (r"hidream(?![-_ ]?o1)", ("hidream",)),
    (r"cosmos[-_ ]?predict[-_ ]?2(?![-_.]5)", ("cosmos_predict2",)),
    (r"\banima\b", ("anima",)),
    (r"\bwan[-_ ]?(video)?[-_ ]?(2|$)", ("wan",)),
    (r"\bltx[-_ ]?v(ideo)?\b(?![-_ ]?2)", ("ltxv",)),
)
_COMPILED = tuple((re.compile(pattern), ids) for pattern, ids in _PATTERNS)


def stated_architectures(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of the architectures that the metadata names; empty if it names none that is known.

    There are several if it does not tell them apart, or if its entries disagree.
    """
    found: dict[str, None] = {}
    for key in _KEYS:
        if text := metadata.get(key, "").strip().lower():
            found.update(dict.fromkeys(_of(text)))
    return tuple(found)


def _of(text: str) -> tuple[str, ...]:
    exact = tuple(
        row.id
        for row in ARCHITECTURES.values()
        if row.id not in ("demo", "unknown")
        and (
            text == row.base_model_version.lower() or text.partition("/")[0] == row.modelspec.lower().partition("/")[0]
        )
    )
    return exact or next((ids for pattern, ids in _COMPILED if pattern.search(text[:200])), ())
