"""Converting colours to sRGB, by what the file says about them."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageFile

from .icc import (
    ADOBE_RGB,
    DCI_P3,
    DISPLAY_P3,
    REC_2020,
    SRGB,
    Curve,
    Primaries,
    hlg_curve,
    matrix_profile,
    power_curve,
    pq_curve,
    srgb_curve,
)
from .mend_png import PNG, chunks

UNNOTICED = 2
"""The difference of two colours, out of 255, that nobody sees."""

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's modes, by the colour spaces of profiles."""

_CODED_PRIMARIES = {1: SRGB, 9: REC_2020, 11: DCI_P3, 12: DISPLAY_P3}
_CODED_CURVES: dict[int, Curve] = {
    4: power_curve(2.2),
    5: power_curve(2.8),
    8: power_curve(1),
    16: pq_curve,
    18: hlg_curve,
}
"""Primaries and curves by their numbers in ITU-T H.273. Other curves are those of video, which are shown as sRGB."""

_USUAL_GAMMA = (0.43, 0.48)
"""Gammas that stand for the curve of sRGB."""

_NEAR = 0.002
"""The most by which the coordinates of the same primaries differ."""

_EXIF, _INTEROPERABILITY = 0x8769, 0xA005


def profile_of(image: ImageFile.ImageFile, data: bytes) -> tuple[bytes | None, str]:
    """Return the colour profile of an image, or one made of what else the file says about its colours.

    Returns:
        The profile, or None for sRGB; and the name of what is worth telling, one of `NOTES`, or "".
    """
    coded = _coded(image, data)
    if coded is not None:
        primaries, curve = coded
        if (primaries, curve) == (SRGB, srgb_curve):
            return None, ""
        return matrix_profile(primaries, curve), "hdr" if curve in (pq_curve, hlg_curve) else ""
    if image.info.get("icc_profile"):
        return image.info["icc_profile"], ""
    if image.format == "PNG" and "srgb" not in image.info:
        gamma = float(image.info.get("gamma") or 1 / 2.2)
        primaries = _primaries(image.info.get("chromaticity"))
        usual = _USUAL_GAMMA[0] <= gamma <= _USUAL_GAMMA[1]
        if not usual or primaries != SRGB:
            return matrix_profile(primaries, srgb_curve if usual else _power(round(1 / gamma, 3))), ""
    if image.format in ("JPEG", "MPO") and _says_adobe_rgb(image):
        return matrix_profile(ADOBE_RGB, _power(563 / 256)), ""
    return None, ""


@lru_cache(maxsize=16)
def _power(exponent: float) -> Curve:
    return power_curve(exponent)


def _primaries(points: tuple[float, ...] | None) -> Primaries:
    """Return the primaries that a PNG gives, with white first; those of sRGB if they are the same or make no sense."""
    if not points or len(points) != 8 or min(points) < 0 or min(points[1::2]) == 0:
        return SRGB
    white, red, green, blue = zip(points[::2], points[1::2], strict=True)
    found = Primaries(red, green, blue, white)
    return SRGB if np.abs(np.subtract(found, SRGB)).max() <= _NEAR else found


def _coded(image: ImageFile.ImageFile, data: bytes) -> tuple[Primaries, Curve] | None:
    """Return the primaries and the curve that a PNG or AVIF names by their numbers in ITU-T H.273."""
    codes = None
    if data.startswith(PNG):
        for kind, content, _ in chunks(data):
            if kind == b"cICP" and len(content) == 4:
                codes = content[0], content[1]
            if kind in (b"cICP", b"IDAT"):
                break
    elif image.format == "AVIF":
        place = data.find(b"colrnclx", 0, 2**16)
        if place >= 0:
            codes = data[place + 9], data[place + 11]
    if codes is None or (image.format == "AVIF" and image.info.get("icc_profile")):
        return None
    return _CODED_PRIMARIES.get(codes[0], SRGB), _CODED_CURVES.get(codes[1], srgb_curve)


def _says_adobe_rgb(image: ImageFile.ImageFile) -> bool:
    """Return whether the facts about a photo say that its colours are Adobe RGB, as cameras do without a profile."""
    if "exif" not in image.info:
        return False
    try:
        exif = image.getexif()
        exif.get_ifd(_EXIF)
        return str(exif.get_ifd(_INTEROPERABILITY).get(1, "")).startswith("R03")
    except Exception:  # a broken EXIF block says nothing
        return False


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """Convert the colours of an image, without its transparency, from a profile to sRGB.

    Returns:
        The image as 8-bit RGB; and the name of what is worth telling, one of `NOTES`, or "".
    """
    mode = {"LA": "L", "La": "L", "RGBA": "RGB", "RGBa": "RGB"}.get(image.mode, image.mode)
    if mode not in ("L", "RGB", "CMYK"):
        mode = "RGB"
    colours = image if image.mode == mode else image.convert(mode)
    if not profile or image.mode == "LAB":
        return _as_rgb(colours), ""
    try:
        transform, wanted = _transform(profile)
        if wanted == "RGB" and mode == "L":
            colours = colours.convert("RGB")
        elif wanted != mode:
            return _as_rgb(colours), "profile_ignored"
        converted = None if transform is None else ImageCms.applyTransform(colours, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError):
        return _as_rgb(colours), "profile_ignored"
    return _as_rgb(colours) if converted is None else converted, ""


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB; itself if it is, because a copy of many pixels takes time."""
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """Return the conversion from a profile to sRGB, and the mode that it is for.

    The conversion is None if it changes next to nothing, whatever the profile's name.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = _MODES[source.profile.xcolor_space.strip()]
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform, mode
    samples = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(samples).convert(mode)
    after = np.asarray(ImageCms.applyTransform(probe, transform), dtype=np.int16)
    same = np.abs(after - np.asarray(probe.convert("RGB"))).max() <= UNNOTICED
    return (None if same else transform), mode
