"""An image of a dataset, with its captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .image_facts import ImageFacts


@dataclass(frozen=True)
class TrainingImage:
    """An image file that is known to be readable.

    Attributes:
        path: the image file.
        name: the name of the image in messages to the user.
        captions: the complete captions, with trigger word, of which one is drawn each time; there may be none.
        facts: the facts about the file.
        repeats: the number of times that an epoch shows the image.
        mask: the file that says which part of the image is trained, which is the image itself if its alpha channel
            does; None trains all of it.
    """

    path: Path
    name: str
    captions: tuple[str, ...]
    facts: ImageFacts
    repeats: int = 1
    mask: Path | None = None

    @property
    def width(self) -> int:
        """The width in pixels after EXIF rotation."""
        return self.facts.width

    @property
    def height(self) -> int:
        """The height in pixels after EXIF rotation."""
        return self.facts.height

    @property
    def caption(self) -> str:
        """The first caption, or an empty string."""
        return self.captions[0] if self.captions else ""
