"""Giving the images of a dataset their captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...config.data_settings import DataSettings
from ...errors import CrucibleError
from ...messages.wording import counted
from ..findings import Finding
from .captions import DAMAGED, FoundCaptions, class_of, find_captions, finished, holds_word, legible
from .image_facts import ImageFacts
from .marks import findings_of_marks, with_trigger_in_place
from .metadata_files import MatchedCaptions
from .scan import REPEATS_FOLDER, FoundImage
from .training_image import TrainingImage


def captions_of(
    found: Sequence[FoundImage], settings: DataSettings, tables: Sequence[MatchedCaptions], findings: list[Finding]
) -> dict[FoundImage, FoundCaptions]:
    """Find the captions of each image in files and tables, and report those that cannot be read in `findings`."""
    captions = {}
    for image in found:
        try:
            captions[image] = find_captions(image, settings.caption_source, tables, per_line=settings.captions_per_line)
        except CrucibleError as error:
            findings.append(Finding("unreadable_caption", "warning", f"{image.name}: {error}"))
            captions[image] = find_captions(image, "metadata", tables)
    return captions


def captioned(
    found: Sequence[FoundImage],
    captions: Mapping[FoundImage, FoundCaptions],
    facts: Mapping[Path, ImageFacts],
    settings: DataSettings,
    findings: list[Finding],
    *,
    are_classes: bool = False,
) -> list[TrainingImage]:
    """Give images their captions as they are trained, and report what there is to say about them in `findings`.

    Args:
        found: the images.
        captions: what was found for each of them.
        facts: the facts about their files.
        settings: the settings of the dataset.
        are_classes: whether the name of an image's folder (1_man) is its caption if it has none.
    """
    images, without, conflicts = [], [], []
    classes: dict[str, list[str]] = {}
    bare: dict[str, str] = {}
    guessed: dict[str, list[str]] = {}
    for image in found:
        own = captions[image]
        if not own.captions and are_classes and class_of(image):
            own = replace(own, captions=class_of(image))
            classes.setdefault(own.captions[0], []).append(image.name)
        if not own.captions:
            without.append(image.name)
        bare[image.name] = own.captions[0] if own.captions else ""
        if own.guess:
            guessed.setdefault(own.guess, []).append(image.name)
        if own.others:
            conflicts.append(f"{image.name} ({own.source} before {', '.join(own.others)})")
        texts = tuple(finished(caption, settings) for caption in own.captions)
        repeats = image.repeats * settings.repeats
        images.append(TrainingImage(image.path, image.name, texts, facts[image.path], repeats))
    word = settings.trigger_word
    added = tuple(
        one.name
        for one in images
        if one.captions and word and not holds_word(with_trigger_in_place(bare[one.name], word), word)
    )
    if added:
        done = f'"{word}" was added to the front of {counted(len(added), "caption")} without it'
        findings.append(Finding("trigger_word_added", "note", done))
    for words, names in classes.items():
        what = (
            f'{counted(len(names), "image has", "images have")} no caption, and "{words}" is used, as their folder says'
        )
        findings.append(Finding("class_captions", "note", what, "", "", tuple(names)))
    findings += _about_the_text(images, bare, guessed)
    if conflicts:
        what = f"{counted(len(conflicts), 'image has', 'images have')} different captions in several places"
        order = "The first one is used, in the order .txt, .caption, metadata.jsonl, metadata.csv."
        findings.append(Finding("caption_conflict", "warning", what, order, "Delete the others.", tuple(conflicts)))
    return complete_captions(images, without, settings, findings)


def complete_captions(
    images: list[TrainingImage], without: Sequence[str], settings: DataSettings, findings: list[Finding]
) -> list[TrainingImage]:
    """Handle images without a caption as the settings say, and report that in `findings`.

    Args:
        without: the names of the images without a caption.

    Returns:
        The images that remain, with captions where the settings provide one.
    """
    if not without:
        return images
    what = f"{counted(len(without), 'image has', 'images have')} no caption"
    if settings.missing_captions == "skip":
        left = [image for image in images if image.captions]
        if left:
            findings.append(Finding("no_caption", "note", what, "They were skipped.", "", tuple(without)))
        else:
            why = "missing_captions is skip, so no image is left to train."
            findings.append(Finding("no_caption", "error", what, why, "Write captions for them.", tuple(without)))
        return left
    if settings.trigger_word:
        done = f'"{settings.trigger_word}" is used as their whole caption.'
        findings.append(Finding("no_caption", "note", what, done, "", tuple(without)))
        whole = (settings.trigger_word,)
        return [image if image.captions else replace(image, captions=whole) for image in images]
    by_folder = any(REPEATS_FOLDER.fullmatch(name.rpartition("/")[0]) for name in without)
    names = "set caption_source to folder_name to use the names of their folders, " if by_folder else ""
    findings.append(
        Finding(
            "no_caption",
            "error",
            what,
            "Without captions, no prompt would call up what the LoRA learns from them.",
            f"Write each into a text file with the image's name ({Path(without[0]).with_suffix('.txt').name} for "
            f"{without[0]}), let Auto Caption write them, set a trigger word to use as their caption, "
            f"{names}or set missing_captions to skip.",
            tuple(without),
        )
    )
    return images


def _about_the_text(
    images: Sequence[TrainingImage], bare: Mapping[str, str], guessed: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Yield findings about captions whose text may be something else than what was meant."""
    for guess, names in guessed.items():
        yield Finding(
            "guessed_encoding",
            "warning",
            f"{counted(len(names), 'caption is', 'captions are')} not UTF-8: {guess}, which is a guess",
            "If it is wrong, other words are trained.",
            "Look at them, and save the files as UTF-8.",
            tuple(names),
        )
    damaged = tuple(image.name for image in images if any(DAMAGED in caption for caption in image.captions))
    if damaged:
        yield Finding(
            "damaged_caption",
            "warning",
            f"{counted(len(damaged), 'caption has', 'captions have')} letters that an earlier program lost",
            f"They are trained as {DAMAGED}.",
            "Write these captions anew.",
            damaged,
        )
    unseen = tuple(name for name, caption in bare.items() if legible(caption) not in (caption, ""))
    unseen = tuple(name for name in unseen if name not in damaged)
    if unseen:
        what = f"Letters that are not seen were left out of {counted(len(unseen), 'caption')}"
        yield Finding("unseen_letters", "note", what, "", "", unseen)
    yield from findings_of_marks([(image.name, caption) for image in images for caption in image.captions])
