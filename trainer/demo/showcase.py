"""A demonstration of what a LoRA has learned from the demo dataset: samples before and after, and two numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files.pictures import to_picture
from . import DEMO_PROMPTS, MODEL_DIR, TRIGGER_WORD
from .style import style_score

SEEDS = (1, 2, 3, 4)
STEPS, CFG = 20, 4.0
SCALE = 2
"""The factor by which samples are enlarged for display."""


@dataclass(frozen=True)
class Outcome:
    """Samples of the base model and of the LoRA, and what their style scores say.

    A style score is about 0 for the base's style and about 1 for the dataset's. Samples have the shape (prompts *
    seeds, 64, 64, 3) and values in 0..1; `plain` samples are of prompts without the trigger word.
    """

    base_triggered: Tensor
    base_plain: Tensor
    lora_triggered: Tensor
    lora_plain: Tensor

    @property
    def learned(self) -> float:
        """The increase of the mean style score by the LoRA with the trigger word in the prompt."""
        return _mean_score(self.lora_triggered) - _mean_score(self.base_triggered)

    @property
    def leaked(self) -> float:
        """The increase of the mean style score by the LoRA without the trigger word; less is better."""
        return _mean_score(self.lora_plain) - _mean_score(self.base_plain)

    def text(self) -> str:
        """Return the two numbers as a sentence."""
        return (
            f'With the trigger word "{TRIGGER_WORD}", samples moved {self.learned:.0%} of the way to the new style, '
            f"without it {self.leaked:.0%}."
        )

    def picture(self) -> Image.Image:
        """Return a sheet with one sample per prompt.

        The base is in the upper row, the LoRA in the lower; the trigger word is used on the left, not on the right.
        """
        rows = [
            torch.cat([triggered[:: len(SEEDS)], plain[:: len(SEEDS)]])
            for triggered, plain in (
                (self.base_triggered, self.base_plain),
                (self.lora_triggered, self.lora_plain),
            )
        ]
        size, gap, margin, header = 64 * SCALE, 8, 90, 30
        count = len(DEMO_PROMPTS)
        middle = margin + count * (size + gap) + 2 * gap
        sheet = Image.new("RGB", (middle + count * (size + gap), header + 2 * (size + gap)), "white")
        draw = ImageDraw.Draw(sheet)
        font = ImageFont.load_default(16)
        draw.text((margin, 6), f'with "{TRIGGER_WORD}"', "black", font)
        draw.text((middle, 6), "without", "black", font)
        for row, (label, pictures) in enumerate(zip(("before", "after"), rows, strict=True)):
            top = header + row * (size + gap)
            draw.text((8, top + size // 2 - 8), label, "black", font)
            for column, pixels in enumerate(pictures):
                left = (margin if column < count else middle) + column % count * (size + gap)
                sheet.paste(to_picture(pixels).resize((size, size), Image.Resampling.NEAREST), (left, top))
        return sheet


def measure(lora: Path) -> Outcome:
    """Sample the demo model with and without a LoRA file, through the public interface of diffusers."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        MODEL_DIR, safety_checker=None, requires_safety_checker=False
    ).to(torch.float32)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    triggered = [f"{TRIGGER_WORD}, {prompt}" for prompt in DEMO_PROMPTS]
    base_triggered, base_plain = _sample(pipeline, triggered), _sample(pipeline, list(DEMO_PROMPTS))
    pipeline.load_lora_weights(lora)
    return Outcome(base_triggered, base_plain, _sample(pipeline, triggered), _sample(pipeline, list(DEMO_PROMPTS)))


@torch.no_grad()
def _sample(pipeline: Any, prompts: list[str]) -> Tensor:
    pictures = pipeline(
        [prompt for prompt in prompts for _ in SEEDS],
        num_inference_steps=STEPS,
        guidance_scale=CFG,
        generator=[torch.Generator().manual_seed(seed) for _ in prompts for seed in SEEDS],
        output_type="pt",
    ).images
    return pictures.permute(0, 2, 3, 1)


def _mean_score(pictures: Tensor) -> float:
    return float(style_score(pictures).mean())
