"""The kinds of toys that whole runs are tested with, by what they are trained on."""

from __future__ import annotations

from collections.abc import Callable

from lora_crucible.data.base import Dataset
from lora_crucible.models.base import BaseModel
from toy import Numbers, Toy
from toy_language import Sayings, ToyLanguage

TOYS: dict[str, tuple[Callable[[], BaseModel], Callable[[], Dataset]]] = {
    "numbers": (Toy, lambda: Numbers(held_out=(3.0, 5.0))),
    "texts": (ToyLanguage, Sayings),
}
