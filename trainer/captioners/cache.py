"""A cache on disk of the texts that captioners wrote, so that the same image is never captioned twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from .base import Captioner
from .options import CaptionStyle

_WHOLE = 1 << 20
"""The largest size in bytes at which a model's file is hashed whole; of larger files, only both ends are hashed."""


class CaptionCache:
    """The texts of one captioner in one style, found by the content of the images.

    The cache is one file with a line of JSON per text. Each text is on disk as soon as it is added, and a line that a
    crash left incomplete is skipped. Two runs may share the file.
    """

    def __init__(self, folder: Path, captioner: Captioner, style: CaptionStyle) -> None:
        key = hashlib.sha256(repr((identity(captioner.folder), captioner.depends_on(style))).encode()).hexdigest()
        self.path = folder / f"{key[:32]}.jsonl"
        self._texts: dict[str, str] = {}
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._texts[entry["image"]] = entry["text"]
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, image: Path) -> str | None:
        """Return the text that was stored for an image of the same content, or None."""
        return self._texts.get(_content(image)) if self._texts else None

    def put(self, image: Path, text: str) -> None:
        """Store the text of an image, in memory and on disk."""
        key = _content(image)
        self._texts[key] = text
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The leading line break separates the entry from a line that a crash left incomplete.
        line = "\n" + json.dumps({"image": key, "text": text}, ensure_ascii=True) + "\n"
        with open(self.path, "ab") as file:
            file.write(line.encode())


def identity(folder: Path) -> str:
    """Return a hash of a model's files that is independent of their folder and does not read gigabytes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode("utf-8", "surrogatepass"))
        with open(path, "rb") as file:
            if size <= _WHOLE:
                digest.update(file.read())
            else:
                digest.update(file.read(_WHOLE // 2))
                file.seek(-_WHOLE // 2, 2)
                digest.update(file.read())
    return digest.hexdigest()


def _content(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()
