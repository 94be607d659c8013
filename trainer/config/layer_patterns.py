"""Layers named by the user, with ranks of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class LayerPattern:
    """Layers by name, with a rank and alpha of their own; None is that of the run.

    Attributes:
        name: the end of a layer's path, from a dot on: `attn2.to_k`; or a path with `*` for any letters.
    """

    name: str
    rank: int | None = None
    alpha: float | None = None

    def matches(self, path: str) -> bool:
        if "*" in self.name:
            return fnmatchcase(path, self.name)
        return path == self.name or path.endswith("." + self.name)


def parse_patterns(text: str) -> tuple[LayerPattern, ...]:
    """Patterns as users write them: `attn2.to_k, input_blocks.* rank=4 alpha=2`, with commas or lines between.

    Raises:
        ValueError: says what is wrong with which pattern.
    """
    return tuple(_parsed(part.strip()) for part in re.split(r"[,\n]", text) if part.strip())


def _parsed(text: str) -> LayerPattern:
    name, *options = text.split()
    values: dict[str, float] = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            values[key] = float(value)
        except ValueError:
            values[key] = 0
        if key not in ("rank", "alpha") or not 0 < values[key] <= 1024 or (key == "rank" and values[key] % 1):
            raise ValueError(
                f"{text!r} is not understood at {option!r}; write a layer's name, then, if they differ from the "
                "run's, rank=… (a whole number) and alpha=…, for instance: attn2.to_k rank=4 alpha=2"
            )
    return LayerPattern(name, int(values["rank"]) if "rank" in values else None, values.get("alpha"))
