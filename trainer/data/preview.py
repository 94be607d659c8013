"""Shows a dataset as training will see it: a report in words, and a sheet of the cropped images."""

from __future__ import annotations

import math
import re
from collections import Counter

from PIL import Image, ImageDraw, ImageFont

from .buckets import bucket_for
from .dataset import Dataset, TrainingImage
from .images import fit, open_image

MARGIN = 12
FONT_SIZE = 13
LINE_HEIGHT = 17
CAPTION_LINES = 4
PAPER, INK, FAINT = (24, 24, 27), (228, 228, 231), (161, 161, 170)

WIDE_FONTS = ("msyh.ttc", "PingFang.ttc", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")
"""Fonts of the common systems with Chinese, Japanese and Korean letters, which Pillow's own font lacks."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def report(dataset: Dataset, *, resolution: int | None = None) -> str:
    """Describes a dataset: what was found, the sizes it is trained at, what was left out and done to it.

    Args:
        resolution: of the training, where the dataset asks for none; without either, sizes are left open.
    """
    resolution = dataset.resolution or resolution
    count = len(dataset.images)
    lines = [
        f"Dataset {dataset.name}: {count} image{'s' * (count != 1)} with captions",
        f"Folder: {dataset.folder}",
        f"Trigger word: {dataset.trigger_word or 'none'}",
    ]
    if resolution:
        sizes = Counter(bucket_for(image.width, image.height, resolution) for image in dataset.images)
        lines += [f"Resolution {resolution}, trained at (width x height):"]
        lines += [f"  {x} x {y}: {n}" for (x, y), n in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
        small = [image.path.name for image in dataset.images if image.width * image.height < resolution**2 * 0.8]
        if small:
            lines += [
                f"{len(small)} image{'s' * (len(small) != 1)} smaller than the resolution, so the LoRA "
                f"learns less detail from them: {', '.join(small[:5])}{' …' * (len(small) > 5)}"
            ]
    for title, items in (("Left out", dataset.skipped), ("Note", dataset.notes)):
        lines += [f"{title}: {item}" for item in items]
    return "\n".join(lines)


def contact_sheet(
    dataset: Dataset,
    *,
    resolution: int | None = None,
    limit: int = 24,
    columns: int = 6,
    thumbnail: int = 192,
) -> Image.Image:
    """Draws the images, cropped as they are trained, each with its name, size and caption below.

    Args:
        resolution: of the training, where the dataset asks for none; without either, images are not cropped.
        limit: images that are shown; where there are more, every n-th one is.
        columns: images in a row.
        thumbnail: longest side of a shown image, in pixels.

    Returns:
        RGB.

    Raises:
        UnreadableImage: an image has become unreadable since the dataset was loaded.
    """
    resolution = dataset.resolution or resolution
    count = min(limit, len(dataset.images))
    shown = [dataset.images[index * len(dataset.images) // count] for index in range(count)]
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    font = _font("".join(image.caption + image.path.name for image in shown))
    captions = [wrap(image.caption, font, thumbnail, CAPTION_LINES) for image in shown]
    cell_width = thumbnail + MARGIN
    cell_height = thumbnail + (max(map(len, captions)) + 1) * LINE_HEIGHT + 2 * MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(shown):
        left = MARGIN + index % columns * cell_width
        top = MARGIN + index // columns * cell_height
        picture, size = _thumbnail(image, resolution, thumbnail)
        sheet.paste(picture, (left + (thumbnail - picture.width) // 2, top + thumbnail - picture.height))
        text_top = top + thumbnail + MARGIN // 2
        label = _shortened(f"{size[0]} x {size[1]}  {image.path.name}", font, thumbnail)
        draw.text((left, text_top), label, fill=FAINT, font=font)
        for number, line in enumerate(captions[index], start=1):
            draw.text((left, text_top + number * LINE_HEIGHT), line, fill=INK, font=font)
    return sheet


def _thumbnail(image: TrainingImage, resolution: int | None, thumbnail: int) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the small picture, and the size in pixels that it is trained at."""
    picture = open_image(image.path, at_least=2 * thumbnail)
    size = image.width, image.height
    if resolution:
        size = bucket_for(image.width, image.height, resolution)
    scale = thumbnail / max(size)
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return fit(picture, small), size


def wrap(text: str, font: Font, width: int, most_lines: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels; what does not fit ends in an ellipsis.

    Words that are longer than a line, and scripts without spaces, are broken anywhere.
    """
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
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _font(text: str) -> Font:
    """Pillow's own font, or one of the system's where the text needs letters that it lacks."""
    if any(letter > "\u2e7f" for letter in text):
        for name in WIDE_FONTS:
            try:
                return ImageFont.truetype(name, FONT_SIZE)
            except OSError:
                continue
    return ImageFont.load_default(FONT_SIZE)
