"""The settings of the base model, the output and the purpose."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from .setting import setting

Purpose = Literal["auto", "quick_test", "character", "style", "object", "concept"]


class OutputSettings(BaseModel):
    """What is trained, what for, and where the result goes, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str | None = setting(
        None,
        "Base model",
        "The model to train on: `demo`, a .safetensors file or a folder in diffusers' format, a language model's "
        "folder in transformers' format, or owner/name on the Hugging Face hub. In ComfyUI it is the MODEL input.",
        group="run",
        aliases=("pretrained_model_name_or_path", "model_name_or_path", "model_name"),
        path="path_or_name",
    )
    output_dir: str = setting(
        "output",
        "Output folder",
        "Folder for everything that a run writes. In ComfyUI it is the output folder.",
        group="run",
        path="path",
    )
    output_name: str = setting(
        "lora",
        "Name",
        "File name of the LoRA. Existing files are never overwritten; a number is added instead.",
        group="run",
    )

    purpose: Purpose = setting(
        "auto",
        "Purpose",
        "What the LoRA is for. It determines every setting that is left on auto. auto judges by the captions; "
        "quick_test is a short run that shows within minutes whether everything works.",
        group="main",
    )

    @field_validator("output_name")
    @classmethod
    def _is_file_name(cls, name: str) -> str:
        name = re.sub(r"\.safetensors$", "", name, flags=re.IGNORECASE)
        if not name.strip(" .") or name.endswith((".", " ")) or re.search(r'[<>:"/\\|?*\x00-\x1f]', name):
            raise ValueError('it must be a file name without any of < > : " / \\ | ? * (folders belong in output_dir)')
        return name
