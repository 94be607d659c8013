"""A preview of an image with its caption below, shown while the captioner works."""

from __future__ import annotations

from PIL import Image, ImageDraw

from ..data.images.contact_sheet import (
    CAPTION_LINES,
    INK,
    LINE_HEIGHT,
    MARGIN,
    PAPER,
    font_for,
    wrap,
)

SIDE = 384
"""The width of a preview in pixels, and the longest side of the image in it."""


def captioned_picture(image: Image.Image, caption: str) -> Image.Image:
    """Return an RGB preview, `SIDE` pixels wide, of the image with the first lines of its caption."""
    picture = image.copy()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    font = font_for(caption)
    lines = wrap(caption, font, SIDE - 2 * MARGIN, CAPTION_LINES)
    sheet = Image.new("RGB", (SIDE, picture.height + CAPTION_LINES * LINE_HEIGHT + 2 * MARGIN), PAPER)
    sheet.paste(picture, ((SIDE - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, picture.height + MARGIN + number * LINE_HEIGHT), line, fill=INK, font=font)
    return sheet
