"""Images of a base model, with and without LoRAs, for the command `sample`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CrucibleError, errors_about
from ..files.names import unused_name
from .exit_status import Outcome

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..merging.ingredients import Strengths

NAMES = {
    "steps": "sample_steps",
    "cfg": "sample_cfg",
    "sampler": "sample_sampler",
    "scheduler": "sample_scheduler",
    "negative": "sample_negative_prompt",
    "seed": "seed",
}
"""The options for images, and the settings of a run that mean the same."""


def draw(options: argparse.Namespace, loras: Sequence[Strengths]) -> Outcome:
    """Draw the prompts of the command `sample` into one image: a row for each, without LoRAs on the left.

    Raises:
        CrucibleError: the model or a LoRA cannot be used, or the image cannot be written.
    """
    config = _config(options)
    output = _output(options)
    from ..models.diffusion.side_by_side import draw_side_by_side
    from ..models.previews import Sampling
    from .interrupt import asked_to_stop
    from .opening import open_base_model

    with asked_to_stop() as check:
        model = open_base_model(config, check, download=options.download)
        native = model.facts.native_resolution or 0
        sampling = Sampling(
            prompts=tuple(options.prompt),
            width=options.width or native,
            height=options.height or native,
            seed=config.seed,
            steps=config.sample_steps,
            cfg=model.facts.sample_cfg if config.sample_cfg is None else config.sample_cfg,
            sampler=config.sample_sampler,
            scheduler=config.sample_scheduler,
            negative=config.sample_negative_prompt,
        )
        with errors_about("model"), model.session("auto"):
            drawn = draw_side_by_side(model, loras, sampling)
    from io import BytesIO

    import torch

    from ..files.atomic import write_whole
    from ..files.pictures import to_picture

    # (prompts, height, width, 3) without and with LoRAs become one image, a row for each prompt.
    columns = [drawn.of_base] if drawn.with_loras is None else [drawn.of_base, drawn.with_loras]
    content = BytesIO()
    to_picture(torch.cat(columns, dim=2).flatten(0, 1)).save(content, "PNG")
    write_whole(output, content.getbuffer(), what="The image")
    used = ", ".join(f"{one.lora.name}:{one.model:g}" for one in loras)
    print(f"Drawn: {output}" + (f" (left: {model.name}, right: with {used})" if drawn.with_loras is not None else ""))
    return Outcome({"output": str(output), "prompts": list(options.prompt), "columns": len(columns)})


def _config(options: argparse.Namespace) -> TrainingConfig:
    """Return the settings that the options stand for, checked as those of a run are."""
    from ..config import parse_config

    if not options.prompt:
        raise CrucibleError(
            f"{options.base_model} makes images, and no --prompt says what to draw. Add one: --prompt "
            '"a cat on a sofa".',
            "settings",
        )
    for name in ("width", "height"):
        size = getattr(options, name)
        if size is not None and (size < 64 or size > 4096 or size % 8):
            raise CrucibleError(
                f"--{name} is {size}, but the sides of an image are 64 to 4096 pixels, in steps of 8. Choose such a "
                "number, or leave it out for the size that the model was made for.",
                "settings",
            )
    given = {setting: getattr(options, name) for name, setting in NAMES.items() if getattr(options, name) is not None}
    with errors_about("settings"):
        return parse_config({"base_model": options.base_model, "task_type": "text-to-image", **given})


def _output(options: argparse.Namespace) -> Path:
    """Return the file to write, whose folder can be written to."""
    from ..files.atomic import require_writable

    output: Path = (options.output or Path("sample.png")).expanduser()
    if output.suffix.lower() != ".png" or output.is_dir():
        raise CrucibleError(
            f"--output {output} is not the name of a PNG file, which is what samples are written as. Name one: "
            "--output sample.png.",
            "settings",
        )
    require_writable(output.parent, "The image")
    name = unused_name(output.stem, lambda one: (output.parent / f"{one}.png").exists())
    return output.with_name(f"{name}.png")
