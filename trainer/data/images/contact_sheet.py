"""A preview of a dataset as training sees it: a contact sheet of cropped images with captions and findings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..findings import Finding
from ..spread import spread
from .buckets import Buckets
from .dataset import ImageDataset
from .decode import fit, open_image
from .training_image import TrainingImage

MARGIN = 12
FONT_SIZE = 13
LINE_HEIGHT = 17
CAPTION_LINES = 4
PAPER, INK, FAINT, WARNING = (24, 24, 27), (228, 228, 231), (161, 161, 170), (251, 191, 36)

WIDE_FONTS = ("msyh.ttc", "PingFang.ttc", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")
"""Fonts of common systems with Chinese, Japanese and Korean characters, which Pillow's built-in font lacks."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    dataset: ImageDataset,
    findings: Sequence[Finding] = (),
    *,
    resolution: int | None = None,
    limit: int = 24,
    columns: int = 6,
    thumbnail: int = 192,
) -> Image.Image:
    """Draw the images as they are cropped for training, each with its size, name, findings and caption below it.

    Args:
        findings: the findings to mark on the images that they name.
        resolution: the training resolution, if the dataset does not set one; without either, images are not cropped.
        limit: the most images to show: first those with findings, then an even selection of the others.
        columns: the most images in a row.
        thumbnail: the longest side of a thumbnail in pixels.

    Returns:
        The contact sheet as an RGB image.

    Raises:
        UnreadableImage: an image has become unreadable since the dataset was loaded.
    """
    resolution = dataset.settings.resolution or resolution
    buckets = Buckets.of(dataset.settings, resolution) if resolution else None
    marks = _marks(dataset, findings)
    shown = _shown(dataset, marks, limit)
    columns = max(1, min(columns, len(shown)))
    rows = math.ceil(len(shown) / columns)
    font = font_for("".join(image.caption + image.name for image in shown))
    captions = [wrap(image.caption, font, thumbnail, CAPTION_LINES) for image in shown]
    header_lines = 2 if marks else 1
    cell_width = thumbnail + MARGIN
    cell_height = thumbnail + (max(map(len, captions)) + header_lines) * LINE_HEIGHT + 2 * MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(shown):
        left = MARGIN + index % columns * cell_width
        top = MARGIN + index // columns * cell_height
        picture, size = _thumbnail(image, buckets, thumbnail)
        sheet.paste(picture, (left + (thumbnail - picture.width) // 2, top + thumbnail - picture.height))
        text_top = top + thumbnail + MARGIN // 2
        label = _shortened(f"{size[0]} x {size[1]}  {image.name}", font, thumbnail)
        draw.text((left, text_top), label, fill=FAINT, font=font)
        if image.name in marks:
            mark = _shortened(", ".join(marks[image.name]), font, thumbnail)
            draw.text((left, text_top + LINE_HEIGHT), mark, fill=WARNING, font=font)
        for number, line in enumerate(captions[index], start=header_lines):
            draw.text((left, text_top + number * LINE_HEIGHT), line, fill=INK, font=font)
    return sheet


def _marks(dataset: ImageDataset, findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Return the marks of each image: the kinds of its findings, spelled out."""
    marks: dict[str, list[str]] = {image.name: ["validation"] for image in dataset.validation}
    for finding in findings:
        for name in finding.images:
            marks.setdefault(name, []).append(finding.kind.replace("_", " "))
    return marks


def _shown(dataset: ImageDataset, marks: dict[str, list[str]], limit: int) -> list[TrainingImage]:
    images = [*dataset.images, *dataset.validation]
    if len(images) <= limit:
        return images
    marked = [image for image in images if image.name in marks][: limit // 2]
    others = [image for image in images if image not in marked]
    return marked + spread(others, limit - len(marked))


def _thumbnail(image: TrainingImage, buckets: Buckets | None, thumbnail: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return the thumbnail of an image, and the width and height in pixels at which it is trained."""
    picture = open_image(image.path, at_least=2 * thumbnail)
    size = buckets.size(image.width, image.height) if buckets else (image.width, image.height)
    scale = thumbnail / max(size)
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return fit(picture, small), size


def wrap(text: str, font: Font, width: int, most_lines: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, ending in an ellipsis if it does not fit.

    Words that are longer than a line, and scripts without spaces, may be broken anywhere.
    """
    text = text[: most_lines * width + 1]  # no character is narrower than a pixel, and measuring long text is slow
    lines = [""]
    for word in re.findall(r"\s+|[^\s\u3040-\u9fff]+|[\u3040-\u9fff]", text):
        if font.getlength(lines[-1] + word.rstrip()) <= width:
            lines[-1] += word
            continue
        if lines[-1]:
            lines.append("")
        for letter in word.lstrip():
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) > most_lines:
        rest = " ".join(lines[most_lines - 1 :])
        lines = [*lines[: most_lines - 1], _shortened(rest, font, width)]
    return lines


def _shortened(text: str, font: Font, width: int) -> str:
    text = text[: width + 1]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def font_for(text: str) -> Font:
    """Return Pillow's built-in font, or a system font if the text has characters that it lacks."""
    if any(letter > "\u2e7f" for letter in text):
        for name in WIDE_FONTS:
            try:
                return ImageFont.truetype(name, FONT_SIZE)
            except OSError:
                continue
    return ImageFont.load_default(FONT_SIZE)
