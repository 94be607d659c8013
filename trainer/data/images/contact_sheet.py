"""Shows a dataset as training will see it: a sheet of the cropped images, with their captions and findings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..findings import Finding
from .buckets import Buckets
from .dataset import Dataset, TrainingImage
from .decode import fit, open_image

MARGIN = 12
FONT_SIZE = 13
LINE_HEIGHT = 17
CAPTION_LINES = 4
PAPER, INK, FAINT, WARNING = (24, 24, 27), (228, 228, 231), (161, 161, 170), (251, 191, 36)

WIDE_FONTS = ("msyh.ttc", "PingFang.ttc", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")
"""Fonts of the common systems with Chinese, Japanese and Korean letters, which Pillow's own font lacks."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    dataset: Dataset,
    findings: Sequence[Finding] = (),
    *,
    resolution: int | None = None,
    limit: int = 24,
    columns: int = 6,
    thumbnail: int = 192,
) -> Image.Image:
    """Draws the images, cropped as they are trained, each with its size, name, findings and caption below.

    Args:
        findings: those that name an image are marked on it.
        resolution: of the training, where the dataset asks for none; without either, images are not cropped.
        limit: images that are shown: first those with a finding, then every n-th of the others.
        columns: images in a row.
        thumbnail: longest side of a shown image, in pixels.

    Returns:
        RGB.

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


def _marks(dataset: Dataset, findings: Sequence[Finding]) -> dict[str, list[str]]:
    """The kinds of findings by image, in words."""
    marks: dict[str, list[str]] = {image.name: ["validation"] for image in dataset.validation}
    for finding in findings:
        for name in finding.images:
            marks.setdefault(name, []).append(finding.kind.replace("_", " "))
    return marks


def _shown(dataset: Dataset, marks: dict[str, list[str]], limit: int) -> list[TrainingImage]:
    images = [*dataset.images, *dataset.validation]
    if len(images) <= limit:
        return images
    marked = [image for image in images if image.name in marks][: limit // 2]
    others = [image for image in images if image not in marked]
    count = limit - len(marked)
    return marked + [others[index * len(others) // count] for index in range(count)]


def _thumbnail(image: TrainingImage, buckets: Buckets | None, thumbnail: int) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the small picture, and the size in pixels that it is trained at."""
    picture = open_image(image.path, at_least=2 * thumbnail)
    size = buckets.size(image.width, image.height) if buckets else (image.width, image.height)
    scale = thumbnail / max(size)
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return fit(picture, small), size


def wrap(text: str, font: Font, width: int, most_lines: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels; what does not fit ends in an ellipsis.

    Words that are longer than a line, and scripts without spaces, are broken anywhere.
    """
    text = text[: most_lines * width + 1]  # no letter is narrower than a pixel, and measuring long texts takes long
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
    """Pillow's own font, or one of the system's where the text needs letters that it lacks."""
    if any(letter > "\u2e7f" for letter in text):
        for name in WIDE_FONTS:
            try:
                return ImageFont.truetype(name, FONT_SIZE)
            except OSError:
                continue
    return ImageFont.load_default(FONT_SIZE)
