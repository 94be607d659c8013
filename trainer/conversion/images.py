"""What configs of most programs for images have in common: sizes, prompts, optimizers and samplers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from .conversion import Conversion, as_number, plain_number

OPTIMIZERS = {
    "adam": "adamw",
    "adamw": "adamw",
    "adamw8bit": "adamw_8bit",
    "adam8bit": "adamw_8bit",
    "pagedadamw": "adamw",
    "pagedadamw32bit": "adamw",
    "pagedadamw8bit": "adamw_8bit",
    "lion": "lion",
    "adafactor": "adafactor",
    "prodigy": "prodigy",
    "adamwschedulefree": "schedule_free_adamw",
    "schedulefreeadamw": "schedule_free_adamw",
}
"""Our name of each optimizer, by its name elsewhere without case and punctuation."""

NEAREST_OPTIMIZERS = {
    "lion8bit": ("lion", "its state is not in 8 bits here"),
    "pagedlion8bit": ("lion", "its state is not in 8 bits here"),
    "adamw8bitkahan": ("adamw_8bit", "the nearest that is offered"),
    "adamwopti": ("adamw", "the nearest that is offered"),
    "prodigyplusschedulefree": ("prodigy", "the nearest that is offered"),
    "prodigy8bit": ("prodigy", "its state is not in 8 bits here"),
    "prodigyopt": ("prodigy", "the same by another name"),
}
"""The nearest of our optimizers, with what to say about it."""

FINDS_ITS_RATE = re.compile(r"^(dadapt|prodigy)")
"""Optimizers that find the learning rate themselves, for which prodigy stands here."""

WEIGHT_DECAY = {"lion": 0.0, "prodigy": 0.0, "adafactor": 0.0, "schedule_free_adamw": 0.0}
"""The weight decay of each optimizer's package if nothing is said; ours is 0.01, as AdamW's."""

SAMPLERS = {
    "euler": "euler",
    "k_euler": "euler",
    "ddim": "ddim",
    "dpmsolver++": "dpmpp_2m",
    "dpmsolver": "dpmpp_2m",
    "dpm++_2m": "dpmpp_2m",
    "dpmpp_2m": "dpmpp_2m",
    "flowmatch": "euler",
}
"""Our name of each sampler; the command line samples image models with these three."""

_OPTION = re.compile(r"\s--([a-z]+)\s+(.*?)(?=\s--[a-z]+\s|$)")

NUMBER_OF_OPTION = {"s": "sample_steps", "l": "sample_cfg"}


def set_optimizer(conversion: Conversion, key: str, value: Any) -> str:
    """Translate the name of an optimizer, which may be the path of a class, and return our name."""
    word = re.sub(r"[^a-z0-9+]", "", str(value).rsplit(".", 1)[-1].lower()) or "adamw"
    if word in OPTIMIZERS:
        conversion.set("optimizer", OPTIMIZERS[word], key)
    elif word in NEAREST_OPTIMIZERS:
        name, why = NEAREST_OPTIMIZERS[word]
        conversion.set("optimizer", name, f"nearest to {key} = {value}")
        conversion.differ(key, value, f"{name} here, {why}")
    elif FINDS_ITS_RATE.match(word):
        conversion.set("optimizer", "prodigy", f"nearest to {key} = {value}")
        conversion.differ(key, value, "prodigy here, which finds the learning rate itself too")
    else:
        conversion.set("optimizer", "adamw", f"nearest to {key} = {value}")
        conversion.differ(key, value, "adamw here; its learning rate may have to be another")
    name = str(conversion.settings["optimizer"])
    if name in WEIGHT_DECAY:
        conversion.default("weight_decay", WEIGHT_DECAY[name])
    return name


def sides_of(value: Any) -> list[float]:
    """Return the numbers of a size: of 512, "512,768", "1024x768" or [512, 768]."""
    parts = value if isinstance(value, list | tuple) else re.split(r"[,x*\s]+", str(value).strip(" []()"))
    return [number for part in parts if (number := as_number(part)) is not None]


def square_side(sides: Sequence[float]) -> int:
    """Return the side of the square with the area of a width and height, as a multiple of 64 unless both are equal."""
    if len(set(sides)) == 1:
        return int(sides[0])
    return max(64, round(math.sqrt(math.prod(sides[:2])) / 64) * 64)


def set_resolutions(conversion: Conversion, key: str, sizes: Sequence[Sequence[float]]) -> None:
    """Translate the sizes that images are trained at, one or more, each as one side or a width and height."""
    squares: list[int] = []
    for sides in sizes:
        side = square_side(sides)
        if len(set(sides[:2])) > 1:
            shape = f"{sides[0]:g} x {sides[1]:g}"
            conversion.differ(
                key, shape, f"images keep their own aspect ratio, with the area of {side} x {side} pixels"
            )
        squares.append(side)
    unique = list(dict.fromkeys(squares))
    if not unique:
        return
    first = max(unique)
    conversion.set("resolution", first, key)
    rest = [side for side in sorted(unique, reverse=True) if side != first]
    if rest:
        conversion.set("extra_resolutions", ", ".join(map(str, rest)), key)


def set_prompts(conversion: Conversion, key: str, prompts: Sequence[str], trigger_word: str = "") -> None:
    """Translate sample prompts with options such as `--n blurry --s 20`, which hold for all prompts here."""
    plain: list[str] = []
    dropped: set[str] = set()
    for prompt in prompts:
        text = prompt.strip()
        if not text or text.startswith("#"):
            continue
        for option, value in _OPTION.findall(f" {text}"):
            if option == "n":
                _set_once(conversion, "sample_negative_prompt", value.strip(), f"{key}, --n")
            elif option in NUMBER_OF_OPTION and (number := as_number(value.strip())) is not None:
                _set_once(conversion, NUMBER_OF_OPTION[option], plain_number(number), f"{key}, --{option}")
            else:
                dropped.add(f"--{option}")
        words = re.split(r"(?:^|\s)--[a-z]+\s", text)[0].strip()
        plain.append(words.replace("[trigger]", trigger_word))
    if plain:
        conversion.set("sample_prompts", plain, key)
    if dropped:
        conversion.lose(
            f"{key}, {', '.join(sorted(dropped))}", True, "samples have the run's resolution and seed, all the same"
        )


def _set_once(conversion: Conversion, name: str, value: Any, reason: str) -> None:
    if name not in conversion.settings:
        conversion.set(name, value, reason)
    elif conversion.settings[name] != value:
        conversion.differ(reason, value, f"{name} is the same for all samples: {conversion.settings[name]}")


def set_sampler(conversion: Conversion, key: str, value: Any) -> None:
    """Translate the name of a sampler."""
    word = str(value).strip().lower()
    conversion.set("sample_sampler", SAMPLERS.get(word, "euler"), key)
    if word and word not in SAMPLERS:
        conversion.differ(key, value, "euler here; in ComfyUI others can be chosen")
