"""The command `python -m trainer sample`, which shows what a model makes with and without LoRAs side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor.requirements import STANDALONE
from ..errors import CrucibleError, errors_about
from .comfyui import enter_comfyui
from .exit_status import Outcome
from .stacked import stacked

if TYPE_CHECKING:
    from ..merging.ingredients import Strengths

FOR_IMAGES = ("output", "negative", "width", "height", "steps", "cfg", "sampler", "scheduler")
FOR_TEXTS = ("max_new_tokens", "chat_template", "load_in_4bit")


def add_sample_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    sample = commands.add_parser("sample", help="draw or ask with and without LoRAs side by side")
    sample.add_argument(
        "--base_model", required=True, metavar="MODEL", help="the model that makes images or texts, as in a config file"
    )
    sample.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="LORA.safetensors[:STRENGTH]",
        help="a LoRA of any trainer, or a folder in PEFT's form, and its strength (default: 1); may be repeated",
    )
    sample.add_argument(
        "--prompt", action="append", default=[], help="may be repeated; a language model without any begins a chat"
    )
    sample.add_argument(
        "--seed", type=int, help="images: as in a run's settings; texts: sample with it (default: likeliest tokens)"
    )
    sample.add_argument("--download", action="store_true", help="download the model from the hub if it is not there")
    images = sample.add_argument_group("for models that make images")
    images.add_argument("--output", type=Path, metavar="FILE.png", help="default: sample.png; never overwritten")
    images.add_argument("--negative", help="what the images should not show")
    images.add_argument("--width", type=int, help="in pixels (default: what the model was made for)")
    images.add_argument("--height", type=int)
    images.add_argument("--steps", type=int, help="sampling steps")
    images.add_argument("--cfg", type=float, help="guidance scale (default: what suits the model)")
    images.add_argument("--sampler", help="by its name in ComfyUI")
    images.add_argument("--scheduler", help="by its name in ComfyUI")
    texts = sample.add_argument_group("for language models")
    texts.add_argument("--max_new_tokens", type=int, help="the longest answer (default: 128)")
    texts.add_argument("--chat_template", help="default: the one that the LoRA was trained with")
    texts.add_argument("--load_in_4bit", action="store_true", default=None, help="hold the model in 4 bits")
    sample.set_defaults(command=_sample, needs=STANDALONE, before=enter_comfyui)


def _sample(options: argparse.Namespace) -> Outcome:
    loras = [stacked(text) for text in options.lora]
    with errors_about("model"):
        asks_for_images = any(getattr(options, name) is not None for name in FOR_IMAGES)
        makes_texts = _makes_texts(options.base_model, loras, asks_for_images)
    what, foreign = ("texts", FOR_IMAGES) if makes_texts else ("images", FOR_TEXTS)
    if given := [f"--{name}" for name in foreign if getattr(options, name) is not None]:
        raise CrucibleError(
            f"{', '.join(given)}: no meaning for {options.base_model}, which makes {what}. Leave it out; `sample "
            "--help` says which options are for images and which for language models.",
            "settings",
        )
    if makes_texts:
        from .sample_texts import ask

        return ask(options, loras)
    from .sample_images import draw

    return draw(options, loras)


def _makes_texts(base_model: str, loras: Sequence[Strengths], asks_for_images: bool) -> bool:
    """Return whether a base model is a language model; what its name leaves open, the LoRAs or other options tell."""
    if loras and not Path(base_model).expanduser().exists():
        from ..merging.architecture import architecture_of_all

        return architecture_of_all([one.lora for one in loras]).id == "language"
    from .task import is_language_model

    return is_language_model(base_model) and (Path(base_model).expanduser().exists() or not asks_for_images)
