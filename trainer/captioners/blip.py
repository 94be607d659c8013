"""The BLIP captioner, which writes one short sentence in lower case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ..files.pretrained import pretrained
from .base import Check, TextCaptioner
from .options import CaptionStyle


class BlipCaptioner(TextCaptioner):
    """A BLIP model; it ignores everything of a style but the length."""

    supported = "BLIP (Salesforce/blip-image-captioning-large and related models)"
    # The model writes one sentence; given more tokens, it only repeats itself.
    most_tokens = 100

    @classmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        # Models of the same type but with other heads answer questions or match texts.
        return config.get("model_type") == "blip" and "BlipForConditionalGeneration" in config.get("architectures", ())

    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        return (self.new_tokens(style),)

    def _load(self, dtype: torch.dtype) -> Any:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.processor = BlipProcessor.from_pretrained(self.folder, **pretrained())
        return BlipForConditionalGeneration.from_pretrained(self.folder, **pretrained(dtype))

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        inputs = self.processor(images=list(images), return_tensors="pt").to(self.device, self.dtype)
        return self.generate(inputs, style, check, prompt_tokens=1, num_beams=3)
