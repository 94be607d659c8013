"""Warnings about base models whose names suggest that they are unsuitable for training.

Distilled models generate images in a few steps, an ability that ordinary training destroys. Their weights have the same
shapes as those of any other model, so only their names give them away.
"""

from __future__ import annotations

import re

_START, _END = r"(?<![a-z])", r"(?![a-z])"

_DISTILLED = re.compile(
    rf"turbo|lightning|schnell|{_START}lcm{_END}|{_START}dmd\d?{_END}|{_START}tcd{_END}|{_START}pcm{_END}|"
    rf"{_START}hyper{_END}|hyper[-_ ]?(?=sd|flux|xl)|distill|(?<!\d)(?:[1-9]|1[0-6])[-_ ]?steps?{_END}",
    re.IGNORECASE,
)
_UNDISTILLED = re.compile(r"de[-_ ]?distill|undistill", re.IGNORECASE)
_EDITING = re.compile(rf"kontext|{_START}edit{_END}|ip2p|pix2pix", re.IGNORECASE)
_INPAINTING = re.compile(rf"inpaint|{_START}fill{_END}", re.IGNORECASE)
_REFINER = re.compile(rf"{_START}refiner{_END}", re.IGNORECASE)


def warning_of_name(name: str) -> str | None:
    """Return a warning about a base model if its name suggests that it is unsuitable for training, else None.

    Args:
        name: the name of the file or folder, with or without extension, without parent folders.
    """
    if (found := _DISTILLED.search(name)) and not _UNDISTILLED.search(name):
        return distilled_warning(f'The base model is "{name}", and "{found[0]}" usually means a model')
    if _REFINER.search(name):
        return _by_name(name, "a refiner, which only finishes images that another model started")
    if _EDITING.search(name):
        return _by_name(name, "a model for editing, which is trained here without the images that it would edit")
    if _INPAINTING.search(name):
        return _by_name(name, "a model for inpainting, which is trained here without the masks that it would use")
    return None


def distilled_warning(what: str) -> str:
    """Return a warning about a distilled model.

    Args:
        what: the start of the warning, which must end with the words "a model".
    """
    return (
        f"{what} that was distilled to generate images in a few steps. Training undoes this: with the LoRA, its images "
        "become blurry or burnt. Train on the model that it was distilled from instead (for instance SDXL base for "
        "SDXL Turbo or Lightning, FLUX.1 dev for schnell) and use the LoRA with either."
    )


def _by_name(name: str, what: str) -> str:
    return warning_of_other_task(f'The base model is "{name}". Judging by its name, it is {what}.')


def warning_of_other_task(what: str) -> str:
    """Return a warning about a model that is made for another task than text-to-image.

    Args:
        what: a sentence about the model.
    """
    return f"{what} A LoRA for text-to-image is better trained on the text-to-image model of the same family."
