"""What the name of a base model says against training on it.

Distilled models draw in a few steps because they were trained to jump; ordinary training makes them walk again. Their
weights have the shapes of any other model, so that only names tell.
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
    """A sentence that warns of a base model by its file's or folder's name; None for most.

    Args:
        name: with or without extension, without folders.
    """
    if (found := _DISTILLED.search(name)) and not _UNDISTILLED.search(name):
        return distilled_warning(f'The base model is "{name}", and "{found[0]}" stands for a model')
    if _REFINER.search(name):
        return _by_name(name, "a refiner, which only touches up pictures that another model began")
    if _EDITING.search(name):
        return _by_name(name, "a model for editing, which is trained here without the pictures that it would edit")
    if _INPAINTING.search(name):
        return _by_name(name, "a model for inpainting, which is trained here without the masks that it would get")
    return None


def distilled_warning(what: str) -> str:
    """The warning of a distilled model.

    Args:
        what: a clause that ends with the words "a model".
    """
    return (
        f"{what} that was distilled to draw in a few steps. Training takes that from it: with the LoRA its pictures "
        "get blurred or burnt. Train on the model that it was made from instead (for instance SDXL base for SDXL "
        "Turbo or Lightning, FLUX.1 dev for schnell) and use the LoRA with either."
    )


def _by_name(name: str, what: str) -> str:
    return warning_of_other_task(f'The base model is "{name}", by its name {what}.')


def warning_of_other_task(what: str) -> str:
    """The warning of a model that does more than draw from prompts.

    Args:
        what: a sentence about the model.
    """
    return f"{what} A LoRA for drawing from prompts is better trained on the text-to-image model of the same family."
