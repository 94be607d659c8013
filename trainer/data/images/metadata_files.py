"""Captions stored together in a metadata.csv or metadata.jsonl file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from ...errors import CrucibleError
from ...files.text import portable, read_file_text
from ...messages.suggestions import nearest_path
from ...messages.wording import counted
from ..findings import Finding
from .file_kinds import has_image_name
from .sidecars import spelling
from .table_rows import csv_rows, json_rows

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
"""The file names that are looked for; if a folder has both, captions in the first take precedence."""

LINES_SHOWN = 3
"""The most lines of a table that a message describes; the rest is only counted."""


@dataclass(frozen=True)
class MetadataFile:
    """The captions in one metadata file.

    Attributes:
        path: the file.
        captions: the captions by the normalised name of their image, in the order of the file.
        unread: what is wrong with each line that could not be used.
        guess: what was guessed about the encoding of the file, or "".
        mended: what was wrong with each line that was read nevertheless, and how.
    """

    path: Path
    captions: dict[str, tuple[str, ...]]
    unread: tuple[str, ...]
    guess: str = ""
    mended: tuple[str, ...] = ()

    def of(self, name: str) -> tuple[str, ...]:
        """Return the captions of an image, by its path in the dataset, as if it were the only one."""
        return self.matched_to([name]).of(name)

    def matched_to(self, names: Iterable[str]) -> MatchedCaptions:
        """Find the images that the rows are about.

        A row has the path of its image in the dataset, with or without ending. Where only one image and one row come
        into question, the last parts of their paths are enough, because tables made elsewhere have paths of another
        folder or computer (C:\\cats\\1.png); case does not matter then.

        Args:
            names: the paths of all images in the dataset.
        """
        wanted = {name: normalised(name) for name in names}
        found = {name: key for name, path in wanted.items() if (key := self._exact(path)) is not None}
        used = set(found.values())
        rows: dict[str, list[str]] = {}
        for key in self.captions:
            if key not in used:
                rows.setdefault(spelling(_last(key)), []).append(key)
        images: dict[str, list[tuple[str, str]]] = {}
        for name, path in wanted.items():
            if name not in found:
                for last in dict.fromkeys((spelling(_last(path)), spelling(_last(_without_ending(path))))):
                    if last in rows:
                        images.setdefault(last, []).append((name, path))
        doubtful = []
        for last, those in images.items():
            pairs = _pairs(those, rows[last])
            found |= pairs
            doubtful += [key for key in rows[last] if key not in pairs.values()]
        used = set(found.values())
        captions = {name: self.captions[key] for name, key in found.items()}
        return MatchedCaptions(
            self.path, captions, tuple(key for key in self.captions if key not in used), tuple(doubtful)
        )

    def _exact(self, path: str) -> str | None:
        return next((key for key in (path, _without_ending(path)) if key in self.captions), None)


@dataclass(frozen=True)
class MatchedCaptions:
    """The captions in one metadata file by the images of a dataset.

    Attributes:
        path: the file.
        captions: the captions by the name of their image.
        without_image: the names in the file that match no image.
        doubtful: those of them that could be several images, or whose image could be another row's.
    """

    path: Path
    captions: dict[str, tuple[str, ...]]
    without_image: tuple[str, ...]
    doubtful: tuple[str, ...]

    def of(self, name: str) -> tuple[str, ...]:
        """Return the captions of an image, by the name that was matched."""
        return self.captions.get(name, ())


def _pairs(images: Sequence[tuple[str, str]], rows: Sequence[str]) -> dict[str, str]:
    """Return the rows, by the names of their images, that have more of their paths in common than with any other."""
    pairs = {}
    for name, path in images:
        scores = sorted(((_common_parts(path, row), row) for row in rows), reverse=True)
        if len(scores) > 1 and scores[0][0] == scores[1][0]:
            continue
        score, row = scores[0]
        if sum(_common_parts(other, row) >= score for _, other in images) == 1:
            pairs[name] = row
    return pairs


def _common_parts(one: str, other: str) -> int:
    """Return how many folders above the file two paths have in common."""
    pairs = zip(reversed(one.split("/")[:-1]), reversed(other.split("/")[:-1]), strict=False)
    count = 0
    for a, b in pairs:
        if spelling(a) != spelling(b):
            break
        count += 1
    return count


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _without_ending(path: str) -> str:
    return str(PurePosixPath(path).with_suffix("")) if _last(path) not in ("", ".", "..") else path


def normalised(name: str) -> str:
    """Return the canonical spelling of a path, with composed letters, forward slashes and no leading ./"""
    return portable(unicodedata.normalize("NFC", name.strip())).replace("\\", "/").removeprefix("./")


def metadata_files(folder: Path, metadata_path: str | None) -> list[Path]:
    """Return the metadata files of a dataset: the one that the user named, or those in its folder.

    Raises:
        CrucibleError: the file that the user named does not exist.
    """
    if metadata_path is None:
        try:
            names = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}
        except OSError:  # whoever looks for the images says so
            return []
        return [names[name] for name in METADATA_FILES if name in names and names[name].is_file()]
    written = Path(metadata_path).expanduser()
    path = written if written.is_absolute() else folder / written
    if not path.is_file():
        raise CrucibleError(
            f"metadata_path is {metadata_path!r}, but there is no file {path}, so the captions are unknown. "
            f"{nearest_path(path)} Correct the path."
        )
    return [path]


def read_metadata(path: Path) -> MetadataFile:
    """Read a metadata file, as JSON or as CSV depending on its extension.

    A CSV file may have a header (`file_name` and `text`, `prompt` or `caption`, in any order, among other columns) or
    none (name, then caption). Several lines for one image are several captions of it.

    Raises:
        CrucibleError: the file cannot be read, or none of its lines has an image and a caption.
    """
    read = read_file_text(path)
    if path.suffix.lower() in (".jsonl", ".json"):
        rows = json_rows(read.text)
    else:
        stems = cache(lambda: _stems(path.parent))
        rows = csv_rows(read.text, path, lambda name: name in stems())
    captions: dict[str, list[str]] = {}
    unread, mended = [], []
    for row in rows:
        if row.problem:
            unread.append(f"{row.place}: {row.problem}")
            continue
        if row.mended:
            mended.append(f"{row.place}: {row.mended}")
        folded = [" ".join(one.split()) for one in row.captions]
        captions.setdefault(normalised(row.name), []).extend(one for one in folded if one)
    if not captions:
        found = f" ({unread[0]})" if unread else ""
        raise CrucibleError(
            f"{path} names no image with a caption{found}, so it cannot be used. "
            "Write one line per image: file_name,text in a .csv, or "
            '{"file_name": "1.png", "text": "a cat"} in a .jsonl. If the captions are in text files, delete it, or set '
            "caption_source to sidecar."
        )
    unique = {name: tuple(dict.fromkeys(found)) for name, found in captions.items()}
    return MetadataFile(path, unique, tuple(unread), read.guess, tuple(mended))


def _stems(folder: Path) -> set[str]:
    """Return the names without ending of the images in a folder."""
    try:
        return {path.stem for path in folder.iterdir() if has_image_name(path)}
    except OSError:
        return set()


def about_tables(tables: Sequence[MetadataFile], matched: Sequence[MatchedCaptions]) -> Iterator[Finding]:
    """Yield findings about rows of tables that are not used, or were read by a guess."""
    for table, captions in zip(tables, matched, strict=True):
        name = table.path.name
        if table.guess:
            what = f"{name} is not UTF-8: {table.guess}, which is a guess"
            why, remedy = "If it is wrong, other words are trained.", "Look at the captions, and save it as UTF-8."
            yield Finding("guessed_encoding", "warning", what, why, remedy)
        if table.mended:
            what = f"{counted(len(table.mended), 'line')} of {name} had to be mended" + _some(table.mended)
            why, remedy = "If that is not what was meant, other words are trained.", "Check these captions."
            yield Finding("mended_lines", "warning", what, why, remedy)
        if table.unread:
            what = f"{counted(len(table.unread), 'line')} of {name} cannot be used" + _some(table.unread)
            yield Finding("unread_lines", "warning", what, "Their captions are missing.", "Fix them.")
        lost = tuple(row for row in captions.without_image if row not in captions.doubtful)
        if lost:
            what = f"{name} lists {counted(len(lost), 'name')} without a readable image"
            remedy = "Fix the names in the file, or add the images."
            yield Finding("rows_without_image", "warning", what, "They are ignored.", remedy, lost)
        if captions.doubtful:
            what = f"{name} lists {counted(len(captions.doubtful), 'name')} that could be of several images or rows"
            remedy = "Write the path of each image in the dataset's folder, such as 10_cat/1.png."
            why = "Their captions are not used."
            yield Finding("doubtful_rows", "warning", what, why, remedy, captions.doubtful)


def _some(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else ""
    return f": {'; '.join(lines[:LINES_SHOWN])}{more}"
