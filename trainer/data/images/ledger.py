"""An account of every file in a dataset folder: what it is used for, or why it is not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ...messages.suggestions import nearest_names
from ...messages.wording import NAMES_SHOWN, counted, listed
from ..findings import Finding, Severity
from ..ignored_names import is_about_the_folder
from ..listing import Listing
from .file_kinds import (
    ARCHIVES,
    SHORTCUTS,
    SILENT,
    TABLE_EXTENSIONS,
    UNFINISHED,
    VIDEOS,
    extension_of,
    has_image_name,
    unread_image,
)
from .masks import MASK_FOLDERS
from .metadata_files import METADATA_FILES
from .scan import DatasetFiles
from .sidecars import is_text, spelling

NO_TEXTS = frozenset({
    ".npz", ".npy", ".pt", ".safetensors", ".cache", ".db", ".xmp", ".pp3", ".aae", ".thm", ".mask",
})  # fmt: skip
"""Endings of files beside images that are no captions."""

CACHES = frozenset({".safetensors", ".pt"})
"""Endings of models, with which other trainers also save what they have encoded of an image."""


class Ledger:
    """An account of the files in a dataset folder.

    Whatever is neither used nor settled as being of no concern is part of a finding in the end.
    """

    def __init__(
        self,
        files: DatasetFiles,
        tables: Collection[Path],
        without: Collection[Path],
        elsewhere: Collection[Path] = (),
    ) -> None:
        """Begin an account with what is used.

        Args:
            files: the files in the folder.
            tables: the tables of captions that are read.
            without: the images without a caption in a file of their own or in a table.
            elsewhere: folders that are used for something else, such as regularization.
        """
        self._files = files
        self._settled = {image.path for image in files.images} | files.texts | files.masks | set(tables)
        self._without = without
        self._elsewhere = elsewhere
        self._captionless = {spelling(image.stem) for image in without}
        self._stems = {spelling(image.path.stem) for image in files.images}

    def findings(self, *, captions_in_files: bool, masks: bool) -> Iterator[Finding]:
        """Yield a finding for every kind of file that is not used, so that nothing is left out in silence.

        Args:
            captions_in_files: whether caption files are read.
            masks: whether mask files are used.
        """
        yield from self._images()
        yield from self._captions(captions_in_files)
        yield from self._masks(masks)
        yield from self._containers()
        yield from self._tables()
        yield from self._subfolders()
        yield from self._others()

    def _taken(self, chosen: Collection[Path]) -> tuple[str, ...]:
        """Settle files, and return their names in the dataset."""
        self._settled |= set(chosen)
        names = {file: one.named(file) for one in self._files.searched for file in (*one.files, *one.broken)}
        return tuple(names.get(file) or self._below(file) for file in chosen)

    def _below(self, path: Path) -> str:
        return path.relative_to(self._files.root.path).as_posix()

    def _rest(self) -> list[Path]:
        entries = (file for one in self._files.searched for file in (*one.files, *one.broken, *one.special))
        return [file for file in entries if file not in self._settled]

    def _images(self) -> Iterator[Finding]:
        broken = [file for one in self._files.searched for file in one.broken]
        if broken:
            what = f"{counted(len(broken), 'link leads', 'links lead')} nowhere"
            why = "What they stand for is missing."
            remedy = "Copy the files here, or delete the links."
            yield Finding("broken_links", "warning", what, why, remedy, self._taken(broken))
        unread = {file: kind for file in self._rest() if (kind := unread_image(file))}
        if unread:
            what = f"{counted(len(unread), 'file is', 'files are')} in a form that cannot be read"
            names = tuple(map("{}: {}".format, self._taken(list(unread)), unread.values()))
            remedy = "Export them as PNG or JPEG."
            yield Finding("unread_images", "warning", what, "They are not trained.", remedy, names)
        if self._files.not_listed:
            count = len(self._files.not_listed)
            what = f"{counted(count, 'image is', 'images are')} not in the table that lists the others of the folder"
            remedy = "Add them to the table, or move them up into the dataset's folder."
            names = self._taken(self._files.not_listed)
            yield Finding("images_not_listed", "warning", what, "They are not trained.", remedy, names)

    def _captions(self, read: bool) -> Iterator[Finding]:
        texts = [file for file in self._rest() if is_text(file)]
        if not read:
            self._settled |= set(texts)
            return
        videos = {spelling(file.stem) for file in self._rest() if extension_of(file) in VIDEOS}
        self._settled |= {file for file in texts if is_about_the_folder(file) or spelling(file.stem) in videos}
        lonely = [file for file in texts if file not in self._settled]
        maybe = [file for file in self._rest() if not is_text(file) and self._may_be_caption(file)]
        if lonely:
            what = f"{counted(len(lonely), 'caption file belongs', 'caption files belong')} to no image"
            why = "What they say is not trained."
            remedy = f"Give each the name of its image, such as photo.txt for photo.jpg{self._suggestions(lonely)}."
            yield Finding("orphan_captions", "warning", what, why, remedy, self._taken(lonely))
        if maybe:
            what = f"{counted(len(maybe), 'file has', 'files have')} the name of an image that lacks a caption"
            why = "Captions are read from .txt and .caption files only."
            remedy = "If these are the captions, save them as plain text with the ending .txt."
            yield Finding("maybe_captions", "warning", what, why, remedy, self._taken(maybe))

    def _may_be_caption(self, file: Path) -> bool:
        """Return whether a file that is not read is called as an image without a caption, and could be a text."""
        if not {spelling(file.stem), spelling(Path(file.stem).stem)} & self._captionless:
            return False
        other = (ARCHIVES, VIDEOS, SHORTCUTS, UNFINISHED, NO_TEXTS)
        return not any(extension_of(file) in endings for endings in other)

    def _suggestions(self, lonely: Collection[Path]) -> str:
        """Return which images lonely captions are probably for, as a parenthesis, or ""."""
        free = {image.stem: image.name for image in self._without}
        pairs = []
        for file in list(lonely)[:NAMES_SHOWN]:
            if near := nearest_names(file.stem, free):
                pairs.append(f"{file.name} may be for {free[near[0]]}")
        return f" ({listed(pairs)})" if pairs else ""

    def _masks(self, used: bool) -> Iterator[Finding]:
        if self._files.lonely_masks:
            lonely = self._files.lonely_masks
            what = f"{counted(len(lonely), 'mask belongs', 'masks belong')} to no image"
            why = "They are neither used nor trained as images."
            remedy = "Give them the names of their images. If they are images, rename them or give them captions."
            yield Finding("lonely_masks", "warning", what, why, remedy, self._taken(lonely))
        if self._files.masks and not used:
            masks = sorted(self._files.masks)
            what = f"{counted(len(masks), 'mask is', 'masks are')} not used, because mask_source is not file"
            remedy = "Set it to file to train only what they show. If they are images, give them captions of their own."
            yield Finding("unused_masks", "note", what, "", remedy, self._taken(masks))

    def _containers(self) -> Iterator[Finding]:
        kinds = (
            ("archives", ARCHIVES, "archive is", "archives are", "What is in them is not trained.", "Unpack them."),
            (
                "videos",
                VIDEOS,
                "video is",
                "videos are",
                "Only images are trained.",
                "Save the frames you want as PNG.",
            ),
            (
                "shortcuts",
                SHORTCUTS,
                "shortcut is",
                "shortcuts are",
                "What they lead to is not trained.",
                "Copy it here.",
            ),
            ("unfinished", UNFINISHED, "unfinished download is", "unfinished downloads are", "", "Download it again."),
        )
        for kind, endings, one, many, why, remedy in kinds:
            files = [file for file in self._rest() if extension_of(file) in endings]
            if files and kind == "videos":  # what telephones record with a photo
                self._settled |= {file for file in files if spelling(file.stem) in self._stems}
                files = [file for file in files if file not in self._settled]
            if files:
                what = f"{counted(len(files), one, many)} not used"
                yield Finding(kind, "warning", what, why, remedy, self._taken(files))

    def _tables(self) -> Iterator[Finding]:
        tables = [file for file in self._rest() if extension_of(file) in TABLE_EXTENSIONS]
        beside = {file for file in tables if extension_of(file) == ".json" and self._is_of_image(file)}
        self._settled |= beside | {file for file in tables if is_about_the_folder(file)}
        tables = [file for file in tables if file not in self._settled]
        below = [file for one in self._left_out() for file in one.files if file.name.lower() in METADATA_FILES]
        if tables or below:
            found = [*tables, *below]
            what = f"{counted(len(found), 'table is', 'tables are')} not read"
            why = (
                "A table of captions is one that is called metadata.csv or metadata.jsonl and is in the folder itself."
            )
            remedy = "If it has the captions, name and move it so, or set metadata_path to it."
            yield Finding("unread_tables", self._doubt(), what, why, remedy, self._taken(found))

    def _doubt(self) -> Severity:
        """Return how serious it is that something is not read that may be captions."""
        return "warning" if self._without else "note"

    def _left_out(self) -> Iterator[Listing]:
        """Yield the folders that are not searched, without those of masks."""
        searched = {one.path for one in self._files.searched}
        for one in self._files.root.walk():
            used = one.path in searched or any(one.path.is_relative_to(other) for other in self._elsewhere)
            if not used and not any(part.lower() in MASK_FOLDERS for part in one.name.split("/")):
                yield one

    def _subfolders(self) -> Iterator[Finding]:
        images: dict[str, int] = {}
        texts: dict[str, int] = {}
        closed = tuple(f"{one.name}: {one.problem}" for one in self._files.root.walk() if one.problem)
        for one in self._left_out():
            count = sum(has_image_name(file) or bool(unread_image(file)) for file in one.files)
            if count:
                images[one.name] = count
            elif count := sum(is_text(file) and not is_about_the_folder(file) for file in one.files):
                texts[one.name] = count
        if images:
            names = [f"{name} ({count})" for name, count in images.items()]
            count = sum(images.values())
            left = counted(count, "image in subfolders is", "images in subfolders are")
            what = f"{left} left out: {listed(names)}"
            why = "Only the folder itself and kohya-style subfolders (10_cat) are searched."
            remedy = "Move them up, or name their folder 1_… to train them too."
            yield Finding("left_out_folders", "warning", what, why, remedy)
        if texts:
            names = [f"{name} ({count})" for name, count in texts.items()]
            count = sum(texts.values())
            unread = counted(count, "text file in subfolders is", "text files in subfolders are")
            what = f"{unread} not read: {listed(names)}"
            why = "A caption file is one beside its image."
            yield Finding("texts_in_folders", self._doubt(), what, why, "If these are captions, move them there.")
        if closed:
            what = f"{counted(len(closed), 'subfolder')} cannot be opened"
            why = "Images in them are not trained."
            yield Finding("closed_folders", "warning", what, why, "Check their permissions.", closed)
        empty = tuple(
            one.name
            for one in self._files.searched
            if one.name and not (one.files or one.broken or one.folders or one.problem)
        )
        if empty:
            what = f"{counted(len(empty), 'subfolder has', 'subfolders have')} a number of repeats but no files"
            yield Finding("empty_folders", "note", what, "", "", empty)

    def _others(self) -> Iterator[Finding]:
        self._settled |= {file for file in self._rest() if extension_of(file) in SILENT or is_about_the_folder(file)}
        self._settled |= {file for file in self._rest() if extension_of(file) in CACHES and self._is_of_image(file)}
        others = self._rest()
        if others:
            what = f"{counted(len(others), 'other file is', 'other files are')} not used"
            yield Finding("other_files", "note", what, "", "", self._taken(others))

    def _is_of_image(self, file: Path) -> bool:
        """Return whether a name is that of an image with something after it, as in photo_0512x0512_wan.safetensors."""
        stem = spelling(file.stem)
        ends = (place for place, letter in enumerate(f"{stem}.") if letter in "_.")
        return any(stem[:end] in self._stems for end in ends)
