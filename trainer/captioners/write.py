"""Writing of captions to disk. Replaced files are kept beside the new ones under names that are never reused."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..data.images.metadata_files import normalised
from ..data.images.sidecars import caption_files
from ..demo import DATASET_DIR
from ..errors import CrucibleError
from ..files.atomic import write_whole
from ..files.names import derived_name
from ..files.text import encoded, portable
from ..messages.wording import listed
from .options import CaptionOptions
from .run import Picture
from .tables import TABLE_ENDINGS, open_table
from .wording import needs_caption

METADATA_FILE = "metadata.csv"


def check_writable(folder: Path) -> None:
    """Check, before captioning starts, that captions can be written into a dataset's folder.

    Raises:
        CrucibleError: the folder is read-only, or is that of the demo dataset.
    """
    if folder.resolve() == DATASET_DIR.resolve():
        raise CrucibleError(
            f"The captions of the demo dataset ({folder}) belong to the package and cannot be replaced. Choose to "
            "write nothing, or caption a folder of your own."
        )
    if not os.access(folder, os.W_OK):
        raise CrucibleError(
            f"The folder {folder} cannot be written to, so the captions could not be saved there. Allow writing to it, "
            "or choose to write nothing: the dataset passes the captions on either way."
        )


def without_shared(pictures: Sequence[Picture], options: CaptionOptions) -> tuple[list[Picture], list[str]]:
    """Leave out the images whose new caption would also become that of another image, such as a.jpg beside a.png.

    Returns:
        The images whose caption can be written to a text file of its own, and a line for each of the others.
    """
    sharing: dict[Path, list[Picture]] = {}
    for picture in pictures:
        sharing.setdefault(picture.path.with_suffix(".txt"), []).append(picture)
    alone, problems = [], []
    for picture in pictures:
        others = [one.name for one in sharing[picture.path.with_suffix(".txt")] if one != picture]
        if others and needs_caption(picture.caption, options):
            problems.append(
                f"{picture.name}: its caption file would also be that of {listed(others)}; rename one of them, or "
                f"write the captions to one table, {METADATA_FILE}"
            )
        else:
            alone.append(picture)
    return alone, problems


def write_sidecars(captions: Mapping[Path, str]) -> list[Path]:
    """Write each image's caption to the text file of the same name, in UTF-8.

    Files that already contain the same text are left alone.

    Returns:
        The files that were written.

    Raises:
        CrucibleError: a file cannot be written.
    """
    written = []
    present = caption_files(captions)
    for image, caption in captions.items():
        path = next(iter(present[image]), image.with_suffix(".txt"))
        if _replace(path, caption + "\n"):
            written.append(path)
    return written


def write_table(path: Path, captions: Mapping[Path, str], new: Collection[Path]) -> bool:
    """Write captions into a table with the names of images relative to it, in UTF-8.

    A table that already exists keeps its form, its other columns, the rows of other images, and further captions of
    the same images.

    Args:
        path: the table, which ends with one of `TABLE_ENDINGS`.
        captions: the caption of each image, for those that the table does not list.
        new: the images whose caption in the table is replaced.

    Returns:
        Whether the file changed.

    Raises:
        CrucibleError: the file cannot be written, or an existing file is not a table of captions.
    """
    table = open_table(path)
    listed = table.listed()
    for image, caption in captions.items():
        name = normalised(_relative(image, path.parent))
        if image in new or name not in listed:
            table.put(name, portable(caption))
    return _replace(path, table.text())


def _relative(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return image.resolve().as_posix()


def _replace(path: Path, text: str) -> bool:
    """Write a file completely or not at all, and return whether its content changed."""
    content = encoded(text)
    try:
        if path.exists():
            if path.read_bytes() == content:
                return False
            _back_up(path)
        write_whole(path, content, what="The caption" if path.suffix not in TABLE_ENDINGS else "The table of captions")
    except OSError as error:
        raise CrucibleError(
            f"{path} cannot be replaced ({error.strerror or error}), so its captions were not saved. Check that the "
            "folder can be written to, then start again: images that were already captioned are not captioned a "
            "second time."
        ) from error
    return True


def _back_up(path: Path) -> None:
    for count in itertools.count(1):
        try:
            with open(path.with_name(derived_name(path.name, f".bak{count if count > 1 else ''}")), "xb") as file:
                file.write(path.read_bytes())
            return
        except FileExistsError:
            continue
