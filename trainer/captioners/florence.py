"""The Florence-2 captioner, which is small and fast and writes plain English."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ..errors import CrucibleError
from ..files.pretrained import pretrained
from .base import Check, TextCaptioner
from .options import CaptionStyle

TASKS = {
    "short": "<CAPTION>",
    "detailed": "<DETAILED_CAPTION>",
    "more detailed": "<MORE_DETAILED_CAPTION>",
}


class FlorenceCaptioner(TextCaptioner):
    """A Florence-2 model in the format that transformers supports without code from the model's repository."""

    supported = "Florence-2 (florence-community/Florence-2-base and related models)"
    most_tokens = 1000

    @classmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        return config.get("model_type") == "florence2"

    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        return style.detail, self.new_tokens(style)

    def _load(self, dtype: torch.dtype) -> Any:
        import transformers

        if not hasattr(transformers, "Florence2ForConditionalGeneration"):
            raise CrucibleError(
                f"The captioner in {self.folder} is Florence-2, which the installed transformers "
                f"({transformers.__version__}) does not support. Update transformers to 4.56 or newer, or choose "
                "another captioner."
            )
        self.processor = transformers.Florence2Processor.from_pretrained(self.folder, **pretrained())
        return transformers.Florence2ForConditionalGeneration.from_pretrained(self.folder, **pretrained(dtype))

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        prompts = [TASKS[style.detail]] * len(images)
        inputs = self.processor(text=prompts, images=list(images), return_tensors="pt").to(self.device, self.dtype)
        return self.generate(inputs, style, check, prompt_tokens=1, num_beams=3)
