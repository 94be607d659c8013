"""Layers selected by name, optionally with their own rank and alpha."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class LayerPattern:
    """A selection of layers by name, optionally with their own rank and alpha.

    Attributes:
        name: the end of a layer's path, starting after a dot (`attn2.to_k`), or a whole path with `*` for any
            characters.
        rank: the rank of these layers, or None for the run's rank.
        alpha: the alpha of these layers, or None for the run's alpha.
    """

    name: str
    rank: int | None = None
    alpha: float | None = None

    def matches(self, path: str) -> bool:
        """Return whether the pattern selects the layer with this path."""
        if "*" in self.name:
            return fnmatchcase(path, self.name)
        return path == self.name or path.endswith("." + self.name)


def parse_patterns(text: str) -> tuple[LayerPattern, ...]:
    """Parse layer patterns as users write them, separated by commas or line breaks.

    For example: `attn2.to_k, input_blocks.* rank=4 alpha=2`.

    Raises:
        ValueError: a pattern cannot be parsed; the message names it and says what is wrong.
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
                f"{text!r} cannot be read at {option!r}; write a layer's name and then, if they differ from the "
                "run's, rank=… (a whole number) and alpha=…, for example: attn2.to_k rank=4 alpha=2"
            )
    return LayerPattern(name, int(values["rank"]) if "rank" in values else None, values.get("alpha"))
