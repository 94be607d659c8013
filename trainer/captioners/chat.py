"""Vision-language chat models, which follow an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ..errors import CrucibleError
from ..files.pretrained import pretrained
from .base import Check, TextCaptioner
from .options import CaptionStyle

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "idefics3", "smolvlm")
"""The supported values of `model_type` in config.json; the first SmolVLM models are called idefics3."""

INSTRUCTIONS = {
    "en": {
        "short": "Describe this picture in one sentence.",
        "detailed": (
            "Describe this picture in two or three sentences: the subject, what it does and wears, the background, "
            "the light and the framing."
        ),
        "more detailed": (
            "Describe this picture in one paragraph: the subject, its looks, clothes, pose and expression, the "
            "objects around it, the background, the light, the colours and the framing."
        ),
    },
    "zh": {
        "short": "用一句话描述这张图片。",
        "detailed": "用两三句话描述这张图片：主体、动作和衣着、背景、光线和构图。",
        "more detailed": "用一段话描述这张图片：主体的外貌、衣着、姿势和表情，周围的物体，背景，光线，色彩和构图。",
    },
}
RULES = {
    "en": "Say only what can be seen, in plain text, and begin with the subject itself.",
    "zh": "只写看得见的内容，用纯文本，直接从主体写起。",
}
LIMITS = {"en": "Use at most {} words.", "zh": "不超过{}个字。"}


def instruction(style: CaptionStyle) -> str:
    """Return the instruction for the model: the user's own if there is one, otherwise one composed from the style."""
    if style.instruction.strip():
        return style.instruction.strip()
    parts = [INSTRUCTIONS[style.language][style.detail], RULES[style.language]]
    if style.max_length:
        parts.append(LIMITS[style.language].format(style.max_length))
    return ("" if style.language == "zh" else " ").join(parts)


class ChatCaptioner(TextCaptioner):
    """A vision-language chat model with a chat template, which follows an instruction."""

    supported = "vision-language chat models (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, SmolVLM)"
    most_tokens = 4096
    batch_size = 4

    @classmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        return config.get("model_type") in MODEL_TYPES

    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        return instruction(style), self.new_tokens(style)

    def _load(self, dtype: torch.dtype) -> Any:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(self.folder, **pretrained(auto=True))
        if getattr(self.processor, "chat_template", None) is None:
            raise CrucibleError(
                f"The captioner in {self.folder} has no chat template, so it cannot be given an instruction. Download "
                "the file chat_template.json or chat_template.jinja of the same model into that folder, or choose a "
                "model whose name ends in Instruct."
            )
        # Generation continues from the end of the prompt, so the prompts of a batch must all end at the same position.
        self.processor.tokenizer.padding_side = "left"
        return AutoModelForImageTextToText.from_pretrained(self.folder, **pretrained(dtype, auto=True))

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        content = [{"type": "image"}, {"type": "text", "text": instruction(style)}]
        conversations = [[{"role": "user", "content": content}] for _ in images]
        prompts = self.processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(
            text=prompts, images=[[image] for image in images], padding=True, return_tensors="pt"
        ).to(self.device, self.dtype)
        # The models' own settings are meant for chatting; without sampling, the last three only cause warnings.
        settings = {"num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        return self.generate(inputs, style, check, prompt_tokens=inputs["input_ids"].shape[1], **settings)
