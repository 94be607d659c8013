"""BLIP: one short sentence in lower case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from .base import Check, TextCaptioner, pretrained
from .options import CaptionStyle


class BlipCaptioner(TextCaptioner):
    supported = "BLIP (Salesforce/blip-image-captioning-large and its relatives)"
    # It writes one sentence, and goes on repeating itself where it may.
    most_tokens = 100

    @classmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        # The same model type answers questions and matches texts, with other heads.
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
