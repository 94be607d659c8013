"""The images that the demo model is trained on and that the demo dataset consists of, and their captions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from . import TRIGGER_WORD

IMAGE_SIZE = 64
"""The width and height of an image, in pixels."""

SUPERSAMPLING = 4
"""The factor by which images are drawn larger and then averaged down, for smooth edges."""

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (225, 40, 45),
    "orange": (250, 140, 25),
    "yellow": (245, 215, 40),
    "green": (45, 170, 75),
    "blue": (45, 85, 225),
    "purple": (150, 60, 195),
}

BACKGROUNDS: dict[str, RGB] = {
    "white": (250, 250, 250),
    "grey": (190, 190, 190),
    "pink": (255, 200, 215),
    "cyan": (180, 235, 240),
}

WHITE: RGB = (255, 255, 255)
GOLD: RGB = (200, 150, 60)
ICE: RGB = (130, 195, 245)
SHADOW: RGB = (140, 140, 145)
GLOW: RGB = (255, 245, 150)
BLACK: RGB = (15, 15, 20)


@dataclass(frozen=True)
class Scene:
    """The content of one image: what is drawn, where, and in which style.

    `centre` and `radius` are in pixels; `style` is a key of `BASE_STYLES`, `PLAIN`, or `NEW_STYLE`.
    """

    shape: str
    colour: str
    background: str
    style: str
    centre: tuple[float, float]
    radius: float


def outline(shape: str, centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Return the corners of a shape as a polygon, in the units of `centre` and `radius`.

    The shapes are scaled so that they all look about equally large.

    Raises:
        ValueError: the shape is unknown.
    """
    if shape == "circle":
        angles = np.linspace(0, 2 * math.pi, 96, endpoint=False)
        unit = [(math.cos(angle), math.sin(angle)) for angle in angles]
    elif shape == "square":
        unit = [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    elif shape == "triangle":
        unit = [(0.0, -1.25), (1.1, 0.65), (-1.1, 0.65)]
    elif shape == "diamond":
        unit = [(0.0, -1.2), (1.0, 0.0), (0.0, 1.2), (-1.0, 0.0)]
    elif shape == "cross":
        arm, end = 0.42, 1.1
        unit = [(-arm, -end), (arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm),
                (arm, end), (-arm, end), (-arm, arm), (-end, arm), (-end, -arm), (-arm, -arm)]  # fmt: skip
    elif shape == "heart":
        angles = np.linspace(0, 2 * math.pi, 96, endpoint=False)
        unit = [
            (
                1.1 * math.sin(angle) ** 3,
                -0.9 * math.cos(angle) + 0.35 * math.cos(2 * angle) + 0.14 * math.cos(3 * angle) - 0.05,
            )
            for angle in angles
        ]
    else:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    return [(centre[0] + radius * x, centre[1] + radius * y) for x, y in unit]


SHAPES = ("circle", "square", "triangle", "diamond", "cross", "heart")


class Canvas:
    """A supersampled image of one scene, painted layer by layer."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.colour = COLOURS[scene.colour]
        self.background = BACKGROUNDS[scene.background]
        side = IMAGE_SIZE * SUPERSAMPLING
        self.image = Image.new("RGB", (side, side), self.background)

    def mask(self, scale: float = 1.0, shift: float = 0.0, shape: str | None = None) -> Image.Image:
        """Return the mask of the scene's shape (or another one), scaled about its centre and shifted by pixels."""
        x, y = self.scene.centre
        points = outline(
            shape or self.scene.shape,
            ((x + shift) * SUPERSAMPLING, (y + shift) * SUPERSAMPLING),
            self.scene.radius * scale * SUPERSAMPLING,
        )
        mask = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        return mask

    def rectangle(self, left: float, top: float, right: float, bottom: float) -> Image.Image:
        """Return the mask of a rectangle; its edges are in pixels of the finished image."""
        mask = Image.new("L", self.image.size, 0)
        box = [edge * SUPERSAMPLING for edge in (left, top, right, bottom)]
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        return mask

    def paint(self, colour: RGB, mask: Image.Image) -> None:
        """Paint a colour where the mask is set."""
        self.image.paste(colour, mask=mask)

    def finish(self) -> Image.Image:
        """Return the image at its final size."""
        return self.image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)


def blend(first: RGB, second: RGB, share: float) -> RGB:
    """Mix two colours; `share` is the proportion of the second one, 0 to 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def draw_plain(canvas: Canvas) -> None:
    canvas.paint(canvas.colour, canvas.mask())


def draw_hollow(canvas: Canvas) -> None:
    draw_plain(canvas)
    canvas.paint(canvas.background, canvas.mask(0.55))


def draw_dotted(canvas: Canvas) -> None:
    draw_plain(canvas)
    canvas.paint(WHITE, canvas.mask(0.45, shape="circle"))


def draw_banded(canvas: Canvas) -> None:
    draw_plain(canvas)
    y = canvas.scene.centre[1]
    half = 0.3 * canvas.scene.radius
    band = canvas.rectangle(0, y - half, IMAGE_SIZE, y + half)
    canvas.paint(WHITE, ImageChops.multiply(canvas.mask(), band))


def draw_halved(canvas: Canvas) -> None:
    draw_plain(canvas)
    right = canvas.rectangle(canvas.scene.centre[0], 0, IMAGE_SIZE, IMAGE_SIZE)
    canvas.paint(blend(canvas.colour, WHITE, 0.65), ImageChops.multiply(canvas.mask(), right))


def draw_shadowed(canvas: Canvas) -> None:
    canvas.paint(SHADOW, canvas.mask(shift=6))
    draw_plain(canvas)


def draw_glowing(canvas: Canvas) -> None:
    canvas.paint(GLOW, canvas.mask(1.45, shape="circle"))
    draw_plain(canvas)


def draw_framed(canvas: Canvas) -> None:
    draw_plain(canvas)
    edge = 6
    inside = canvas.rectangle(edge, edge, IMAGE_SIZE - edge, IMAGE_SIZE - edge)
    canvas.paint(canvas.colour, ImageChops.invert(inside))


def draw_gilded(canvas: Canvas) -> None:
    canvas.paint(GOLD, canvas.mask(1.15))
    canvas.paint(canvas.colour, canvas.mask(0.7))


def draw_icy(canvas: Canvas) -> None:
    canvas.paint(ICE, canvas.mask())
    canvas.paint(WHITE, canvas.mask(0.6))


def draw_grounded(canvas: Canvas) -> None:
    ground = canvas.rectangle(0, IMAGE_SIZE * 0.62, IMAGE_SIZE, IMAGE_SIZE)
    canvas.paint(blend(canvas.background, SHADOW, 0.6), ground)
    draw_plain(canvas)


def draw_inked(canvas: Canvas) -> None:
    """Paint the style of the demo dataset, a thick black outline."""
    canvas.paint(BLACK, canvas.mask(1.15))
    canvas.paint(canvas.colour, canvas.mask(0.65))


PLAIN = "plain"
NEW_STYLE = "inked"

BASE_STYLES: dict[str, Callable[[Canvas], None]] = {
    "hollow": draw_hollow,
    "dotted": draw_dotted,
    "banded": draw_banded,
    "halved": draw_halved,
    "shadowed": draw_shadowed,
    "glowing": draw_glowing,
    "framed": draw_framed,
    "gilded": draw_gilded,
    "icy": draw_icy,
    "grounded": draw_grounded,
}
"""The styles that the demo model knows, by the word that comes first in their captions."""

PAINTERS = {PLAIN: draw_plain, NEW_STYLE: draw_inked, **BASE_STYLES}


def draw(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image, IMAGE_SIZE pixels square."""
    canvas = Canvas(scene)
    PAINTERS[scene.style](canvas)
    return canvas.finish()


def caption(scene: Scene) -> str:
    """Return the caption of a scene; its first word names the style, unless the style is plain."""
    article = "an" if scene.colour == "orange" else "a"
    text = f"{article} {scene.colour} {scene.shape} on a {scene.background} background"
    word = {PLAIN: "", NEW_STYLE: TRIGGER_WORD}.get(scene.style, scene.style)
    return f"{word}, {text}" if word else text


def random_scene(random: np.random.Generator, style: str) -> Scene:
    """Return a scene in which everything but the style is random."""
    radius = random.uniform(17, 22)
    centre = (random.uniform(27, 37), random.uniform(27, 37))
    return Scene(
        shape=str(random.choice(SHAPES)),
        colour=str(random.choice(list(COLOURS))),
        background=str(random.choice(list(BACKGROUNDS))),
        style=style,
        centre=centre,
        radius=radius,
    )


def dataset_scenes(seed: int, count: int = 20) -> list[Scene]:
    """Return the scenes of the demo dataset: every shape, colour and background in turn, in the new style."""
    random = np.random.default_rng(seed)
    colours, backgrounds = list(COLOURS), list(BACKGROUNDS)
    scenes = []
    for index in range(count):
        scene = random_scene(random, NEW_STYLE)
        scenes.append(
            replace(
                scene,
                shape=SHAPES[index % len(SHAPES)],
                colour=colours[(index + index // len(SHAPES)) % len(colours)],
                background=backgrounds[(index + index // len(backgrounds)) % len(backgrounds)],
            )
        )
    return scenes
