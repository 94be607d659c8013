"""Recognize the layers of a LoRA file by their names, without knowing the architecture."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from .layer_tables.model_sizes import SIZES
from .layer_tables.rows import Length, Row, rows
from .spelling import flat, spellings

_BY_COMFYUI = re.compile(r"(?:base_model\.model\.)?(?:model\.)?diffusion_model\.")


@dataclass(frozen=True)
class Meaning:
    """What a layer's name stands for in one architecture.

    Attributes:
        native: whether the name is ComfyUI's or the original code's, rather than diffusers'.
        whole: whether it is the whole layer rather than a part of its outputs.
        blocks: ComfyUI's name of the list of blocks that it is in; empty if it is outside.
        outputs, inputs: the numbers of outputs and inputs, as in the tables; None if they are not given.
    """

    native: bool
    whole: bool
    blocks: str
    outputs: Length | None
    inputs: Length | None


@dataclass(frozen=True)
class NamedLayer:
    """A layer's name, taken apart.

    Attributes:
        pattern: its spelling with "#" for block numbers.
        block: the first block number; None if it has none.
        by_comfyui: whether it has the prefix of ComfyUI's own names.
    """

    pattern: str
    block: int | None
    by_comfyui: bool


@lru_cache(maxsize=1 << 17)
def named_layer(name: str) -> NamedLayer:
    """Take a layer's name apart, whatever path of the model it begins with."""
    known, block_numbers = meanings(), _block_numbers()
    for spelling in spellings(name):
        pattern, block = _numbers_removed(spelling, block_numbers)
        if pattern in known:
            return NamedLayer(pattern, block, _BY_COMFYUI.match(name) is not None)
    return NamedLayer(*_numbers_removed(flat(name), block_numbers), False)


def _numbers_removed(spelling: str, block_numbers: re.Pattern[str]) -> tuple[str, int | None]:
    first = block_numbers.search(spelling)
    if first is None:
        return spelling, None
    return block_numbers.sub(r"\1_#", spelling), int(first[2])


@cache
def meanings() -> Mapping[str, Mapping[str, Meaning]]:
    """Return what each pattern stands for, by pattern and the architecture's id."""
    found: dict[str, dict[str, Meaning]] = defaultdict(dict)
    for architecture in SIZES:
        for row in rows(architecture):
            for name, meaning in _spelled(row):
                found[name].setdefault(architecture, meaning)
    for name in [name for name in found if name.endswith("_to_out_0")]:
        for architecture, meaning in found[name].items():
            found[name.removesuffix("_0")].setdefault(architecture, meaning)
    return found


def _spelled(row: Row) -> list[tuple[str, Meaning]]:
    blocks = row.native.partition(".#")[0] if "#" in row.native else ""
    whole = Meaning(True, True, blocks, row.outputs, row.inputs)
    total = sum(part.share for part in row.parts)
    found = [(flat(row.native), whole), (flat(row.original), whole)]
    for part in row.parts:
        outputs = row.outputs * part.share / total if isinstance(row.outputs, Fraction) else row.outputs
        found.append((flat(part.name), Meaning(False, len(row.parts) == 1, blocks, outputs, row.inputs)))
    return found


@cache
def _block_numbers() -> re.Pattern[str]:
    lists = set()
    for architecture in SIZES:
        for row in rows(architecture):
            for name in (row.native, row.original, *(part.name for part in row.parts)):
                lists |= {path.rpartition(".")[2] for path in _paths_before_numbers(name)}
    words = "|".join(sorted(lists, key=len, reverse=True))
    return re.compile(rf"(?:(?<=_)|(?<=^))({words})_(\d+)(?=_|$)")


def _paths_before_numbers(name: str) -> list[str]:
    return [name[: match.start()] for match in re.finditer(r"\.#", name)]
