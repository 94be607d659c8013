"""Every setting of a training run, with its range, default and description.

The one place where settings are defined: node widgets, YAML keys, command line and documentation are made
from these fields. A field that is None is left to `resolve`, which finds a value for it (auto).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from .data_settings import DataSettings
from .guard_settings import GuardSettings
from .layer_patterns import parse_patterns
from .objective_settings import ObjectiveSettings
from .optimizer_settings import OptimizerSettings
from .run_settings import RunSettings
from .setting import Setting, describe_settings, setting

PRECISION_NAMES = {
    "no": "fp32",
    "false": "fp32",  # YAML 1.1 reads `no` as false
    "float": "fp32",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}


Purpose = Literal["auto", "quick_test", "character", "style", "object", "concept"]
TargetModules = Literal["attention", "attention_and_feed_forward", "linear", "linear_and_convolution"]


class TrainingConfig(DataSettings, OptimizerSettings, ObjectiveSettings, GuardSettings, RunSettings):
    """The settings of one training run. Use `parse_config` for values that a user wrote."""

    # Model and output
    base_model: str | None = setting(
        None,
        "Base model",
        "What the LoRA is trained on: `demo`, or the folder of a diffusers model. In ComfyUI it is the MODEL input.",
        group="data",
    )
    output_dir: str = setting(
        "output",
        "Output folder",
        "Folder for everything that a run writes. In ComfyUI it is the output folder.",
        group="output",
        advanced=True,
    )
    output_name: str = setting(
        "lora",
        "Name",
        "File name of the LoRA. An existing file is never overwritten: a number is added.",
        group="output",
    )

    purpose: Purpose = setting(
        "auto",
        "Purpose",
        "What the LoRA is for. It decides every setting that is left on auto. auto looks at the images and captions; "
        "quick_test is a short run that shows in a few minutes whether everything works.",
        group="training",
    )

    # Adapter
    lora_rank: int | None = setting(
        None,
        "Rank",
        "How much the LoRA can learn: 4 to 8 for one subject and few images, 16 to 32 for a rich style and "
        "many images. A higher rank makes a larger file and overfits sooner.",
        group="adapter",
        step=1,
        aliases=("network_dim",),
        ge=1,
        le=512,
    )
    lora_alpha: float | None = setting(
        None,
        "Alpha",
        "Scales the LoRA by alpha / rank. Half the rank to the rank is usual; lower acts like a lower learning rate.",
        group="adapter",
        advanced=True,
        step=0.5,
        aliases=("network_alpha",),
        gt=0,
        le=1024,
    )
    lora_dropout: float = setting(
        0.0,
        "Dropout",
        "Share of the LoRA's inputs that is switched off at random in each step. 0.05 to 0.1 slows overfitting.",
        group="adapter",
        advanced=True,
        step=0.05,
        ge=0.0,
        le=0.9,
    )
    target_modules: TargetModules | None = setting(
        None,
        "Layers",
        "Which layers of the model get an adapter. With the feed-forward layers it learns more, in a larger file; "
        "linear is all linear layers, linear_and_convolution all that can have one.",
        group="adapter",
        advanced=True,
    )

    train_text_encoder: bool = setting(
        False,
        "Train text encoder",
        "Train the text encoders too, which helps a new word to mean something. Needs more memory and time: captions "
        "are encoded anew in every step.",
        group="adapter",
        advanced=True,
    )
    algorithm: Literal["lora", "rslora", "dora", "loha", "lokr"] = setting(
        "lora",
        "Algorithm",
        "lora works everywhere. rslora scales by alpha / sqrt(rank), for ranks from 32. dora trains direction and "
        "length apart: a little better, slower; applied by ComfyUI and Forge only. loha and lokr say more with fewer "
        "numbers; read by ComfyUI, A1111 and Forge, not by diffusers.",
        group="adapter",
        advanced=True,
        value_aliases={"locon": "lora"},
    )
    loraplus_ratio: float = setting(
        1.0,
        "LoRA+ ratio",
        "How many times larger the learning rate of a LoRA's second factor is than that of its first (LoRA+). 1 is "
        "off, 4 to 16 learns faster.",
        group="adapter",
        advanced=True,
        step=1.0,
        aliases=("loraplus_lr_ratio",),
        ge=1.0,
        le=100.0,
    )
    layer_patterns: str = setting(
        "",
        "Layers by name",
        "Train these layers only, one a line, each with a rank and alpha of its own where you like: "
        "attn2.to_k rank=4 alpha=2. A name is the end of a layer's path; * stands for any letters.",
        group="adapter",
        advanced=True,
        multiline=True,
    )

    # Optimization
    batch_size: int | None = setting(
        None,
        "Batch size",
        "Images at a time. More needs more memory; gradient accumulation has the same effect without it.",
        group="training",
        step=1,
        aliases=("train_batch_size", "per_device_train_batch_size"),
        ge=1,
        le=64,
    )
    gradient_accumulation_steps: int | None = setting(
        None,
        "Gradient accumulation",
        "Batches that are averaged into one step. Batch size times this should be 4 to 8.",
        group="training",
        advanced=True,
        step=1,
        aliases=("gradient_accumulation",),
        ge=1,
        le=256,
    )
    epochs: int | None = setting(
        None,
        "Epochs",
        "How often every image is shown. Give this or max_train_steps, not both.",
        group="training",
        step=1,
        aliases=("num_train_epochs", "max_train_epochs"),
        ge=1,
        le=10_000,
    )
    max_train_steps: int | None = setting(
        None,
        "Steps",
        "Number of optimizer steps. Give this or epochs, not both.",
        group="training",
        step=1,
        aliases=("max_steps",),
        ge=1,
        le=1_000_000,
    )
    learning_rate: float | None = setting(
        None,
        "Learning rate",
        "Size of a step: 0.0002 suits SD1.5, 0.0001 larger models. Halve it when the loss swings.",
        group="training",
        step=0.00001,
        gt=0,
        le=1,
    )
    text_encoder_learning_rate: float | None = setting(
        None,
        "Text encoder learning rate",
        "Learning rate of the text encoders, where they are trained: half of the model's is usual.",
        group="training",
        advanced=True,
        step=0.00001,
        aliases=("text_encoder_lr",),
        gt=0,
        le=1,
    )
    lr_warmup_steps: int | None = setting(
        None,
        "Warmup steps",
        "Steps in which the learning rate rises from zero to its value: 5 to 10 % of all steps.",
        group="training",
        advanced=True,
        step=1,
        aliases=("warmup_steps", "num_warmup_steps"),
        ge=0,
        le=100_000,
    )
    weight_decay: float = setting(
        0.01,
        "Weight decay",
        "Pulls the LoRA's weights towards zero, against overfitting.",
        group="training",
        advanced=True,
        step=0.01,
        ge=0.0,
        le=1.0,
    )
    max_grad_norm: float = setting(
        1.0,
        "Gradient clipping",
        "Longest gradient that is used as it is; longer ones are shortened to it.",
        group="training",
        advanced=True,
        step=0.1,
        ge=0.01,
        le=1000.0,
    )
    mixed_precision: Literal["auto", "fp32", "fp16", "bf16"] = setting(
        "auto",
        "Precision",
        "Number format of the computation; the LoRA itself is always trained in fp32.",
        group="training",
        advanced=True,
        value_aliases=PRECISION_NAMES,
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Needs much less memory and about a third more time.",
        group="training",
        advanced=True,
    )
    seed: int = setting(
        42,
        "Seed",
        "Start of all random numbers: the same seed gives the same LoRA.",
        group="training",
        step=1,
        ge=0,
        le=2**63 - 1,
    )
    cache_size_gb: float = setting(
        20.0,
        "Cache size",
        "GB on disk that encoded images and captions may take. Beyond it, what was not used for longest is deleted.",
        group="output",
        advanced=True,
        step=1.0,
        ge=0.0,
        le=10_000.0,
    )
    save_precision: Literal["fp16", "fp32"] = setting(
        "fp16",
        "Precision of the file",
        "fp16 halves the file and is enough for use; fp32 loses nothing.",
        group="output",
        advanced=True,
        value_aliases=PRECISION_NAMES,
    )

    # Samples during training
    sample_prompts: str = setting(
        "",
        "Sample prompts",
        "One prompt a line, drawn while training. Empty: the first captions of the dataset.",
        group="samples",
        multiline=True,
    )
    sample_negative_prompt: str = setting(
        "",
        "Negative prompt",
        "What samples should not show. It acts on models that are sampled with a CFG above 1.",
        group="samples",
        advanced=True,
        multiline=True,
    )
    sample_every_n_steps: int | None = setting(
        None,
        "Sample every",
        "Steps between two rounds of samples.",
        group="samples",
        advanced=True,
        step=1,
        ge=1,
        le=1_000_000,
    )
    sample_steps: int = setting(
        20, "Sampling steps", "Steps of the sampler.", group="samples", advanced=True, step=1, ge=1, le=200
    )
    sample_cfg: float | None = setting(
        None,
        "Sample CFG",
        "How closely samples follow their prompt.",
        group="samples",
        advanced=True,
        step=0.5,
        gt=0,
        le=100,
    )
    sample_sampler: str = setting(
        "euler", "Sampler", "Name of the sampler, as in ComfyUI.", group="samples", advanced=True
    )
    sample_scheduler: str = setting(
        "normal", "Scheduler", "Name of the noise schedule, as in ComfyUI.", group="samples", advanced=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read_as_written(cls, value: Any, info: ValidationInfo) -> Any:
        return SETTINGS[str(info.field_name)].read(value)

    @field_validator("output_name")
    @classmethod
    def _is_file_name(cls, name: str) -> str:
        name = re.sub(r"\.safetensors$", "", name, flags=re.IGNORECASE)
        if not name.strip(" .") or name.endswith((".", " ")) or re.search(r'[<>:"/\\|?*\x00-\x1f]', name):
            raise ValueError('it must be a file name without any of < > : " / \\ | ? * (folders belong in output_dir)')
        return name

    @field_validator("layer_patterns")
    @classmethod
    def _are_patterns(cls, text: str) -> str:
        parse_patterns(text)
        return text

    @property
    def data(self) -> DataSettings:
        """The settings of the dataset alone."""
        return DataSettings(**{name: getattr(self, name) for name in DataSettings.model_fields})

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.epochs is not None and self.max_train_steps is not None:
            raise ValueError(
                f"epochs = {self.epochs} and max_train_steps = {self.max_train_steps} both say how long to "
                "train; keep one of them"
            )
        return self


_LAST = (
    *OptimizerSettings.model_fields,
    *ObjectiveSettings.model_fields,
    *GuardSettings.model_fields,
    *RunSettings.model_fields,
)
"""Newer than the others: saved workflows hold widgets by position, so these follow those that were there."""

_described = describe_settings(TrainingConfig)
SETTINGS: dict[str, Setting] = {
    name: _described[name] for name in (*(name for name in _described if name not in _LAST), *_LAST)
}
"""What is known of each field, by its key, in the order of widgets and files."""

OF_OTHER_NODES = (
    *("base_model", "output_dir", "output_name", "resume_from_checkpoint", "continue_from"),
    *DataSettings.model_fields,
)
"""Settings that in ComfyUI are said by Load Dataset, Train LoRA, and the connected model, not by Configure LoRA."""
