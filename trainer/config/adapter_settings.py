"""The settings of the adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from .layer_patterns import parse_patterns
from .setting import setting

TargetModules = Literal["attention", "attention_and_feed_forward", "linear", "linear_and_convolution"]


class AdapterSettings(BaseModel):
    """The algorithm, the size and the layers of the adapter, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lora_rank: int | None = setting(
        None,
        "Rank",
        "How much the LoRA can learn: 4 to 8 for one subject and few images, 16 to 32 for a complex style and many "
        "images. Higher makes a larger file and overfits sooner.",
        group="main",
        step=1,
        aliases=("network_dim", "lora_r", "r"),
        ge=1,
        le=512,
    )
    lora_alpha: float | None = setting(
        None,
        "Alpha",
        "Scales the LoRA by alpha / rank. Half the rank up to the full rank is usual, for language models twice the "
        "rank; lower acts like a lower learning rate.",
        group="layers",
        step=0.5,
        aliases=("network_alpha",),
        gt=0,
        le=1024,
    )
    lora_dropout: float | None = setting(
        None,
        "Dropout",
        "Fraction of the LoRA's inputs dropped at random in each step. 0.05 to 0.1 slows overfitting; higher slows "
        "learning too. auto is 0 for images; for language models 0.1, or less for large ones.",
        group="layers",
        step=0.05,
        ge=0.0,
        le=0.9,
    )
    target_modules: TargetModules | None = setting(
        None,
        "Layers",
        "Which layers of the model get an adapter. Adding the feed-forward layers learns more, in a larger file; "
        "linear is all linear layers, linear_and_convolution every layer that can have one.",
        group="layers",
        aliases=("lora_target", "lora_target_modules"),
        value_aliases={"all": "linear", "all-linear": "linear", "all_linear": "linear"},
    )

    train_text_encoder: bool = setting(
        False,
        "Train text encoder",
        "Train the text encoders too, which helps the model learn a new word. Needs more memory and time, because "
        "captions are encoded again in every step.",
        group="layers",
        task="text-to-image",
        instead="the language model itself is what is trained",
    )
    algorithm: Literal["lora", "rslora", "dora", "loha", "lokr"] = setting(
        "lora",
        "Algorithm",
        "lora works everywhere. rslora scales by alpha / sqrt(rank), for ranks of 32 and above. dora trains direction "
        "and magnitude separately: slightly better but slower, and applied only by ComfyUI and Forge. loha and lokr "
        "get more out of fewer parameters; ComfyUI, A1111 and Forge read them, diffusers does not.",
        group="layers",
        value_aliases={"locon": "lora"},
    )
    loraplus_ratio: float = setting(
        1.0,
        "LoRA+ ratio",
        "LoRA+: how many times higher the learning rate of a LoRA's second matrix (B) is than that of its first (A). "
        "1 turns it off; 4 to 16 learns faster.",
        group="layers",
        step=1.0,
        aliases=("loraplus_lr_ratio",),
        ge=1.0,
        le=100.0,
    )
    layer_patterns: str = setting(
        "",
        "Layers by name",
        "Train only these layers, one per line, each with its own rank and alpha if you like: attn2.to_k rank=4 "
        "alpha=2. A name is the end of a layer's path; * matches any characters.",
        group="layers",
        multiline=True,
    )

    @field_validator("layer_patterns")
    @classmethod
    def _are_patterns(cls, text: str) -> str:
        parse_patterns(text)
        return text
