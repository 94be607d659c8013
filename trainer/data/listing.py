"""Listing a folder with its subfolders once, so that everything in it can be accounted for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .ignored_names import is_rubbish

DEPTH = 4
"""How many folders deep a dataset folder is looked at."""

MOST_LISTED = 50_000
"""The number of files after which no further subfolders are looked at."""


@dataclass(frozen=True)
class Listing:
    """The content of a folder, without hidden files and what operating systems leave behind.

    Attributes:
        path: the folder.
        name: its path below the folder that was listed, with forward slashes; "" for that folder itself.
        files: its files, links to files included, sorted by name.
        broken: links that lead nowhere.
        special: what is neither file nor folder, such as a pipe.
        folders: its subfolders, sorted by name.
        problem: why it could not be listed, or "".
    """

    path: Path
    name: str
    files: tuple[Path, ...] = ()
    broken: tuple[Path, ...] = ()
    special: tuple[Path, ...] = ()
    folders: tuple[Listing, ...] = ()
    problem: str = ""

    def walk(self) -> Iterator[Listing]:
        """Yield the folder and all folders below it, parents first."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def named(self, file: Path) -> str:
        """Return the path of one of its files below the folder that was listed, with forward slashes."""
        return f"{self.name}/{file.name}" if self.name else file.name


def list_folder(folder: Path, depth: int = DEPTH) -> Listing:
    """List a folder and its subfolders.

    Links that lead back to a folder they are in are left out. Subfolders that come after `MOST_LISTED` files seem
    empty.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    listing = _list(folder, "", depth, [MOST_LISTED])
    if listing.problem:
        os.listdir(folder)  # raises what was caught
    return listing


def _list(folder: Path, name: str, depth: int, room: list[int]) -> Listing:
    files, broken, special, folders = [], [], [], []
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not is_rubbish(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        return Listing(folder, name, problem=error.strerror or str(error))
    room[0] -= len(found)
    for entry in found:
        path = folder / entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        if is_folder:
            below = f"{name}/{entry.name}" if name else entry.name
            if entry.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
                continue
            reached = depth > 0 and room[0] > 0
            folders.append(_list(path, below, depth - 1, room) if reached else Listing(path, below))
        elif is_file:
            files.append(path)
        elif entry.is_symlink():
            broken.append(path)
        else:
            special.append(path)
    return Listing(folder, name, tuple(files), tuple(broken), tuple(special), tuple(folders))


def signature(path: str | Path) -> str:
    """Return a hash that changes when a file, or any file in a folder and its subfolders, does, without reading it.

    It is computed from names, sizes and modification times, so it is only meaningful on the same machine. What cannot
    be read has a signature too.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        listings = [Listing(path.parent, "", (path,))] if path.is_file() else list(list_folder(path).walk())
    except OSError:
        return digest.hexdigest()
    for one in listings:
        for entry in (*one.files, *one.broken):
            try:
                facts = entry.lstat() if entry in one.broken else entry.stat()
            except OSError:
                continue
            line = f"{one.named(entry)}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
