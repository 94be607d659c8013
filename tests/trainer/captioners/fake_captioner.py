"""A captioner without a model, for tests of the code around captioners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lora_crucible.captioners.base import Captioner, Check
from lora_crucible.captioners.options import CaptionStyle
from PIL import Image


class FakeCaptioner(Captioner):
    """A captioner that names images by the shade of their first pixel; `fails` may raise for a batch of shades."""

    supported = "fakes"
    batch_size = 4

    def __init__(
        self, folder: Path, fails: Callable[[list[int]], None] = lambda shades: None, tags: bool = False
    ) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        self.batches: list[list[int]] = []
        self.loads = 0
        self.fails = fails
        self.writes_tags = tags

    @classmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        return False

    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        return (style.detail,)

    def _load(self, dtype: torch.dtype) -> Any:
        self.loads += 1
        return torch.nn.Linear(1, 1)

    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        shades = [image.getpixel((0, 0))[0] for image in images]
        check()
        self.fails(shades)
        self.batches.append(shades)
        return [f"shade {shade}, plain" for shade in shades]

    @contextmanager
    def session(self) -> Iterator[Callable[[], None]]:
        self.load(torch.float32)
        yield lambda: None
        self.unload()


def save_pictures(folder: Path, count: int) -> list[Path]:
    """Save images of the shades 0, 1, 2, …"""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{shade:02}.png" for shade in range(count)]
    for shade, path in enumerate(paths):
        Image.new("RGB", (20, 10), (shade, 90, 160)).save(path)
    return paths
