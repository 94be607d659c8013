"""Drawn pictures of ten kinds, each different by its number and seed, as users have them in their folders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 512
Random = np.random.Generator

COUNT = 30
"""The number of pictures of a folder."""

WORDS = ("quick", "brown", "foxes", "jump", "over", "lazy", "dogs", "while", "wizards", "mix", "potions", "a", "moon")


def clouds(random: Random, steepness: float = 1.0, size: tuple[int, int] = (SIDE, SIDE)) -> NDArray[np.float32]:
    """Make noise from 0 to 1 whose detail falls with the frequency to the power of `steepness`, as in nature."""
    width, height = size
    noise = np.fft.rfft2(random.normal(size=(height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    field = np.fft.irfft2(noise / frequency**steepness, s=(height, width))
    low, high = np.quantile(field, [0.01, 0.99])
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)


def coloured(field: NDArray[np.float32], random: Random) -> Image.Image:
    """Colour a field from 0 to 1 by a random palette of five colours."""
    palette = random.integers(0, 256, (5, 3)).astype(np.float32)
    place = field * 4
    low = np.minimum(place.astype(int), 3)
    part = (place - low)[..., None]
    return image(palette[low] * (1 - part) + palette[low + 1] * part)


def image(values: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def grained(picture: Image.Image, random: Random, strength: float) -> Image.Image:
    values = np.asarray(picture, dtype=np.float32)
    return image(values + random.normal(0, strength, values.shape[:2] + (1,) * (values.ndim - 2)))


def colour(random: Random, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random.integers(low, high, 3))
    return red, green, blue


def photo(number: int, random: Random) -> Image.Image:
    """Draw a photo: every other one has a shallow depth of field, with a sharp subject before a blurred background."""
    scene = coloured(clouds(random, 1.2 + 0.5 * random.random()), random)
    if number % 2:
        scene = scene.filter(ImageFilter.GaussianBlur(float(random.uniform(6, 14))))
        subject = coloured(clouds(random, 1.0), random)
        mask = Image.new("L", scene.size)
        x, y, size = (int(value) for value in random.integers(100, 300, 3))
        ImageDraw.Draw(mask).ellipse((x, y, x + size // 2 + 40, y + size // 2), fill=255)
        scene.paste(subject, mask=mask.filter(ImageFilter.GaussianBlur(1)))
    return grained(scene, random, float(random.uniform(1, 5)))


def drawing(number: int, random: Random) -> Image.Image:
    """Draw a line drawing on paper without any noise."""
    scene = Image.new("RGB", (SIDE, SIDE), colour(random, 235))
    draw = ImageDraw.Draw(scene)
    for _ in range(int(random.integers(6, 25))):
        points = [tuple(map(int, point)) for point in random.integers(20, SIDE - 20, (int(random.integers(2, 6)), 2))]
        draw.line(points, fill=colour(random, 0, 120), width=int(random.integers(1, 6)), joint="curve")
    return scene


def icon(number: int, random: Random) -> Image.Image:
    """Draw a flat icon: one to four shapes on a plain background."""
    scene = Image.new("RGB", (SIDE, SIDE), colour(random))
    draw = ImageDraw.Draw(scene)
    for _ in range(int(random.integers(1, 5))):
        x, y, width, height = (int(value) for value in (*random.integers(40, 260, 2), *random.integers(60, 220, 2)))
        box, fill = (x, y, x + width, y + height), colour(random)
        kind = int(random.integers(4))
        if kind == 0:
            draw.ellipse(box, fill=fill)
        elif kind == 1:
            draw.rounded_rectangle(box, 20, fill=fill)
        elif kind == 2:
            draw.regular_polygon((x + width / 2, y + height / 2, width / 2), int(random.integers(3, 8)), fill=fill)
        else:
            draw.arc(box, int(random.integers(360)), int(random.integers(360)) + 200, fill=fill, width=24)
    return scene


def on_white(number: int, random: Random) -> Image.Image:
    """Draw the same object on white, each time from another side: a body with a band and a handle."""
    body = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
    draw = ImageDraw.Draw(body)
    draw.rounded_rectangle((160, 130, 350, 400), 30, fill=(176, 58, 46, 255))
    draw.rectangle((160, 220, 350, 260), fill=(240, 220, 130, 255))
    draw.arc((310, 180, 440, 340), 240, 120, fill=(120, 40, 30, 255), width=24)
    shade = Image.linear_gradient("L").resize(body.size).rotate(float(random.uniform(0, 360)))
    body.paste(Image.new("RGBA", body.size, (0, 0, 0, 255)), mask=shade.point(lambda value: value // 4))
    mask = body.getchannel("A").point(lambda value: 255 if value > 200 else 0)
    turn, scale = float(random.uniform(-180, 180)), float(random.uniform(0.6, 1.1))
    side = int(SIDE * scale)
    shift = tuple(int(value) for value in random.integers(-30, 31, 2) + (SIDE - side) // 2)
    scene = Image.new("RGB", (SIDE, SIDE), "white")
    placed = [part.rotate(turn, Image.Resampling.BICUBIC).resize((side, side)) for part in (body.convert("RGB"), mask)]
    scene.paste(placed[0], shift, placed[1])
    return scene


def paragraph(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], random: Random, size: int, ink: object
) -> None:
    font = ImageFont.load_default(size)
    for y in range(box[1], box[3] - size, int(size * 1.4)):
        line = ""
        while font.getlength(line) < (box[2] - box[0]) * random.uniform(0.6, 1):
            line += str(random.choice(WORDS)) + " "
        draw.text((box[0], y), line, fill=ink, font=font)  # type: ignore[arg-type]


def screenshot(number: int, random: Random) -> Image.Image:
    """Draw a window of the same program, with other texts and another panel open."""
    scene = Image.new("RGB", (720, 540), (245, 245, 245))
    draw = ImageDraw.Draw(scene)
    draw.rectangle((0, 0, 720, 36), fill=(50, 60, 80))
    draw.rectangle((0, 36, 170, 540), fill=(225, 228, 235))
    draw.text((10, 9), "Program", fill="white", font=ImageFont.load_default(16))
    for row in range(12):
        chosen = row == number % 12
        draw.rectangle((6, 50 + row * 38, 164, 80 + row * 38), fill=(90, 130, 220) if chosen else (235, 238, 243))
    paragraph(
        draw, (190, 60, 700, int(random.integers(180, 520))), random, int(random.choice([12, 14, 18])), (30, 30, 30)
    )
    if number % 3 == 0:
        x, y = (int(value) for value in random.integers(180, 380, 2))
        draw.rectangle((x, y, x + 240, y + 120), fill="white", outline=(120, 120, 120), width=2)
        paragraph(draw, (x + 12, y + 12, x + 220, y + 110), random, 14, (0, 0, 0))
    return scene


def scan(number: int, random: Random) -> Image.Image:
    """Draw the scan of a page of text: grainy paper, a little turned, with a shadow at one side, 16 bits deep."""
    page = Image.new("L", (560, 720), 240)
    paragraph(ImageDraw.Draw(page), (50, 60, 520, 680), random, 15, 40)
    page = page.rotate(float(random.uniform(-1.5, 1.5)), Image.Resampling.BICUBIC, fillcolor=236)
    page = page.filter(ImageFilter.GaussianBlur(0.6))
    values = np.asarray(page, dtype=np.float32) - np.linspace(30, 0, 560, dtype=np.float32)
    values += random.normal(0, 3, values.shape)
    return Image.fromarray(np.clip(values * 257, 0, 65535).astype(np.uint16))


def painting(number: int, random: Random) -> Image.Image:
    """Paint hundreds of soft strokes over a wash of colour."""
    scene = coloured(clouds(random, 1.8), random)
    for layer in range(3):
        draw = ImageDraw.Draw(scene, "RGBA")
        for _ in range(150):
            x, y = (int(value) for value in random.integers(0, SIDE, 2))
            length, angle = random.uniform(15, 90) / (layer + 1), random.uniform(0, np.pi)
            near = scene.getpixel((x, y))
            fill = tuple(int(np.clip(value + random.integers(-40, 41), 0, 255)) for value in near)  # type: ignore[union-attr]
            end = (x + int(length * np.cos(angle)), y + int(length * np.sin(angle)))
            draw.line((x, y, *end), fill=(*fill, 170), width=int(14 / (layer + 1)) + 1)
    return scene.filter(ImageFilter.GaussianBlur(0.8))


def texture(number: int, random: Random) -> Image.Image:
    """Make a surface of low contrast: cloth, plaster or paper."""
    base = np.array(colour(random, 60, 200), dtype=np.float32)
    kind = number % 3
    if kind == 0:
        across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
        pitch = random.uniform(4, 9)
        field = np.sin(across * 2 * np.pi / pitch) + np.sin(down * 2 * np.pi / pitch * random.uniform(0.8, 1.2))
        field = field / 4 + 0.5 + random.normal(0, 0.1, field.shape)
    else:
        field = clouds(random, 0.5 if kind == 1 else 1.0)
    return image(base + (field[..., None] - 0.5).astype(np.float32) * float(random.uniform(16, 50)))


def grey(number: int, random: Random) -> Image.Image:
    """Draw a black-and-white photo, stored as grey."""
    return photo(number, random).convert("L")


def letter(number: int, random: Random) -> Image.Image:
    """Draw a letter on white, all in one place and size."""
    scene = Image.new("RGB", (SIDE, SIDE), "white")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    font = ImageFont.load_default(int(random.choice([180, 260])))
    draw = ImageDraw.Draw(scene)
    draw.text((SIDE / 2, SIDE / 2), letters[number % len(letters)], fill="black", font=font, anchor="mm")
    return scene


KINDS: dict[str, Callable[[int, Random], Image.Image]] = {
    "photos": photo,
    "drawings": drawing,
    "icons": icon,
    "one subject on white": on_white,
    "screenshots": screenshot,
    "scans": scan,
    "paintings": painting,
    "textures": texture,
    "grey": grey,
    "letters": letter,
}


def pictures(kind: str, seed: int = 0, count: int = COUNT) -> list[Image.Image]:
    """Return different pictures of a kind."""
    return [KINDS[kind](number, np.random.default_rng([seed, number])) for number in range(count)]
