"""An account of every file in a dataset folder: what it is used for, or why it is not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ...messages.wording import counted, listed
from ..findings import Finding
from .captions import caption_paths
from .scan import CAPTION_EXTENSIONS, RUBBISH, FoundImage, find_mask, usable_folders

UNREAD_IMAGES = {
    ".jxl": "JPEG XL",
    ".svg": "a vector drawing",
    ".ai": "a vector drawing",
    ".eps": "a vector drawing",
    ".pdf": "a PDF",
    ".exr": "an HDR image",
    ".hdr": "an HDR image",
    ".xcf": "a GIMP file",
    ".kra": "a Krita file",
    ".clip": "a Clip Studio file",
    ".dng": "a raw photo",
    ".raw": "a raw photo",
    ".cr2": "a raw photo",
    ".cr3": "a raw photo",
    ".nef": "a raw photo",
    ".arw": "a raw photo",
    ".orf": "a raw photo",
    ".rw2": "a raw photo",
    ".raf": "a raw photo",
}
"""Endings of image files that are not read, with what they are."""

ABOUT_FOLDERS = ("readme", "license", "licence", "copying", "changelog", "credits", "attribution")
"""The beginnings of the names of texts about a folder, which are captions of no image."""

CACHES = (".npz", ".npy", ".pt", ".cache")
"""Endings of what other trainers keep beside images."""


def account(folder: Path, found: Collection[FoundImage], used: Collection[Path], *, masks: bool) -> Iterator[Finding]:
    """Yield a finding for every kind of file that is not used, so that nothing in the folder is left out in silence.

    Args:
        folder: the folder of the dataset.
        found: the images in the folder, readable or not.
        used: the tables of captions that are read.
        masks: whether masks are used.
    """
    images = {image.path for image in found}
    folders = dict.fromkeys([folder, *(image.path.parent for image in found)])
    captions = {path for image in images for path in caption_paths(image)}
    unused_masks = {mask for image in images if (mask := find_mask(image))}
    captionless = {image.stem for image in images if not caption_paths(image)}
    broken, unread, orphans, others = [], [], [], []
    for entry in (entry for one in folders for entry in sorted(one.iterdir())):
        known = entry in images or entry in captions or entry in unused_masks or entry in used
        if known or entry.name.startswith(".") or entry.name in RUBBISH or entry.is_dir():
            continue
        name, ending = entry.relative_to(folder).as_posix(), entry.suffix.lower()
        if entry.is_symlink() and not entry.exists():
            broken.append(name)
        elif ending in UNREAD_IMAGES:
            unread.append(f"{name}: {UNREAD_IMAGES[ending]}")
        elif ending in (extension.lower() for extension in CAPTION_EXTENSIONS):
            if not entry.stem.lower().startswith(ABOUT_FOLDERS):
                orphans.append(name)
        elif ending == ".json" and entry.stem in captionless:
            orphans.append(name)
        elif ending not in CACHES and not entry.stem.lower().startswith(ABOUT_FOLDERS):
            others.append(name)
    if broken:
        what = f"{counted(len(broken), 'link leads', 'links lead')} nowhere"
        yield Finding(
            "broken_links", "warning", what, "Their images are missing.", "Mend or delete them.", tuple(broken)
        )
    if unread:
        what = f"{counted(len(unread), 'file is', 'files are')} in a form that cannot be read"
        remedy = "Export them as PNG or JPEG."
        yield Finding("unread_images", "warning", what, "They are not trained.", remedy, tuple(unread))
    if orphans:
        what = f"{counted(len(orphans), 'caption file belongs', 'caption files belong')} to no image"
        remedy = "Give each the name of its image, such as photo.txt for photo.jpg."
        yield Finding("orphan_captions", "warning", what, "They are not used.", remedy, tuple(orphans))
    if unused_masks and not masks:
        names = tuple(sorted(mask.relative_to(folder).as_posix() for mask in unused_masks))
        what = f"{counted(len(names), 'mask is', 'masks are')} not used, because mask_source is not file"
        yield Finding("unused_masks", "note", what, "", "Set it to file to train only what they show.", names)
    if others:
        what = f"{counted(len(others), 'other file is', 'other files are')} not used"
        remedy = "A table of captions is read if it is metadata.csv or metadata.jsonl, or if metadata_path names it."
        tables = any(name.lower().endswith((".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx")) for name in others)
        yield Finding("other_files", "note", what, "", remedy if tables else "", tuple(others))
    yield from _left_out_folders(folder, images)


def _left_out_folders(folder: Path, images: Collection[Path]) -> Iterator[Finding]:
    inside = {parent for image in images for parent in image.parents}
    left = {sub: count for sub, count in usable_folders(folder).items() if sub not in inside}
    left = {sub: count for sub, count in left.items() if sub.name.lower() not in ("mask", "masks")}
    if left:
        names = [f"{sub.relative_to(folder).as_posix()} ({count})" for sub, count in left.items()]
        yield Finding(
            "left_out_folders",
            "warning",
            f"{counted(sum(left.values()), 'image')} in subfolders are left out: {listed(names)}",
            "Only the folder itself and kohya-style subfolders (10_cat) are searched.",
            "Move them up, or name their folder 1_… to train them too.",
        )
