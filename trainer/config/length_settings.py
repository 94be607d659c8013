"""The settings of the length, the learning rate and the precision of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from .setting import setting

PRECISION_NAMES = {
    "no": "fp32",
    "false": "fp32",  # YAML 1.1 reads `no` as false
    "float": "fp32",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}


class LengthSettings(BaseModel):
    """How long, how fast and how precisely is trained, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float | None = setting(
        None,
        "Learning rate",
        "How far each step changes the LoRA: 0.0002 suits SD1.5 and language models, 0.0001 larger image models. "
        "Higher learns faster; halve it if the loss becomes unstable.",
        group="main",
        step=0.00001,
        gt=0,
        le=1,
    )
    epochs: int | None = setting(
        None,
        "Epochs",
        "How many times every image or row is shown. Set this or max_train_steps, not both.",
        group="main",
        step=1,
        aliases=("num_train_epochs", "max_train_epochs", "num_epochs"),
        ge=1,
        le=10_000,
    )
    max_train_steps: int | None = setting(
        None,
        "Steps",
        "Number of optimizer steps. Too few learn too little, too many overfit. Set this or epochs, not both.",
        group="main",
        step=1,
        aliases=("max_steps",),
        ge=1,
        le=1_000_000,
    )
    batch_size: int | None = setting(
        None,
        "Batch size",
        "Images or rows processed at once. More makes training steadier but needs more memory; gradient accumulation "
        "has the same effect without it.",
        group="main",
        step=1,
        aliases=("train_batch_size", "per_device_train_batch_size", "micro_batch_size"),
        ge=1,
        le=64,
    )
    gradient_accumulation_steps: int | None = setting(
        None,
        "Gradient accumulation",
        "Batches averaged into one step. Higher makes training steadier but slower; batch size times this should be 4 "
        "to 8.",
        group="memory",
        step=1,
        aliases=("gradient_accumulation",),
        ge=1,
        le=256,
    )
    text_encoder_learning_rate: float | None = setting(
        None,
        "Text encoder learning rate",
        "Learning rate of the text encoders, if they are trained. Half of the model's is usual.",
        group="optimizer",
        task="text-to-image",
        instead="learning_rate is the rate of the language model",
        step=0.00001,
        aliases=("text_encoder_lr",),
        gt=0,
        le=1,
    )
    lr_warmup_steps: int | None = setting(
        None,
        "Warmup steps",
        "Steps over which the learning rate rises from zero to its full value. 5 to 10 % of all steps is usual.",
        group="optimizer",
        step=1,
        aliases=("warmup_steps", "num_warmup_steps"),
        share="lr_warmup_ratio",
        ge=0,
        le=100_000,
    )
    weight_decay: float = setting(
        0.01,
        "Weight decay",
        "Pulls the LoRA's weights towards zero to reduce overfitting. Higher pulls harder; 0 turns it off.",
        group="optimizer",
        step=0.01,
        ge=0.0,
        le=1.0,
    )
    max_grad_norm: float = setting(
        1.0,
        "Gradient clipping",
        "Gradients with a norm above this are scaled down to it, which prevents sudden jumps. Lower is more cautious.",
        group="optimizer",
        step=0.1,
        ge=0.01,
        le=1000.0,
    )
    mixed_precision: Literal["auto", "fp32", "fp16", "bf16"] = setting(
        "auto",
        "Precision",
        "Number format of the computation. The LoRA's own weights are always trained in fp32.",
        group="memory",
        value_aliases=PRECISION_NAMES,
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Needs much less memory, but about a third more time.",
        group="memory",
    )
    seed: int = setting(
        42,
        "Seed",
        "Seed of all random numbers: the same seed and settings give the same LoRA.",
        group="main",
        step=1,
        ge=0,
        le=2**63 - 1,
    )
    cache_size_gb: float = setting(
        20.0,
        "Cache size",
        "Disk space in GB for the cache of encoded images and captions. When it is exceeded, the entries unused for "
        "longest are deleted.",
        group="memory",
        step=1.0,
        ge=0.0,
        le=10_000.0,
    )
    save_precision: Literal["fp16", "fp32"] = setting(
        "fp16",
        "Precision of the file",
        "fp16 halves the file size and is precise enough for use; fp32 saves the weights exactly.",
        group="memory",
        value_aliases=PRECISION_NAMES,
    )

    @model_validator(mode="after")
    def _one_length(self) -> LengthSettings:
        if self.epochs is not None and self.max_train_steps is not None:
            raise ValueError(
                f"epochs = {self.epochs} and max_train_steps = {self.max_train_steps} both say how long to "
                "train; keep one of them"
            )
        return self
