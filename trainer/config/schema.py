"""Every setting of a training run, with its range, default and description.

This is the only place where settings are defined: node widgets, YAML keys, command line and documentation are
generated from these fields. A field that is None is on auto, and `resolve` chooses a value for it.
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
    """The settings of one training run. Use `parse_config` to build one from values that a user wrote."""

    # Model and output
    base_model: str | None = setting(
        None,
        "Base model",
        "The model to train on: `demo`, or the folder of a diffusers model. In ComfyUI it is the MODEL input.",
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
        "File name of the LoRA. Existing files are never overwritten; a number is added instead.",
        group="output",
    )

    purpose: Purpose = setting(
        "auto",
        "Purpose",
        "What the LoRA is for. It determines every setting that is left on auto. auto judges by the captions; "
        "quick_test is a short run that shows within minutes whether everything works.",
        group="training",
    )

    # Adapter
    lora_rank: int | None = setting(
        None,
        "Rank",
        "How much the LoRA can learn: 4 to 8 for one subject and few images, 16 to 32 for a complex style and many "
        "images. Higher makes a larger file and overfits sooner.",
        group="adapter",
        step=1,
        aliases=("network_dim",),
        ge=1,
        le=512,
    )
    lora_alpha: float | None = setting(
        None,
        "Alpha",
        "Scales the LoRA by alpha / rank. Half the rank up to the full rank is usual; lower acts like a lower "
        "learning rate.",
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
        "Fraction of the LoRA's inputs dropped at random in each step. 0.05 to 0.1 slows overfitting; higher slows "
        "learning too.",
        group="adapter",
        advanced=True,
        step=0.05,
        ge=0.0,
        le=0.9,
    )
    target_modules: TargetModules | None = setting(
        None,
        "Layers",
        "Which layers of the model get an adapter. Adding the feed-forward layers learns more, in a larger file; "
        "linear is all linear layers, linear_and_convolution every layer that can have one.",
        group="adapter",
        advanced=True,
    )

    train_text_encoder: bool = setting(
        False,
        "Train text encoder",
        "Train the text encoders too, which helps the model learn a new word. Needs more memory and time, because "
        "captions are encoded again in every step.",
        group="adapter",
        advanced=True,
    )
    algorithm: Literal["lora", "rslora", "dora", "loha", "lokr"] = setting(
        "lora",
        "Algorithm",
        "lora works everywhere. rslora scales by alpha / sqrt(rank), for ranks of 32 and above. dora trains direction "
        "and magnitude separately: slightly better but slower, and applied only by ComfyUI and Forge. loha and lokr "
        "get more out of fewer parameters; ComfyUI, A1111 and Forge read them, diffusers does not.",
        group="adapter",
        advanced=True,
        value_aliases={"locon": "lora"},
    )
    loraplus_ratio: float = setting(
        1.0,
        "LoRA+ ratio",
        "LoRA+: how many times higher the learning rate of a LoRA's second matrix (B) is than that of its first (A). "
        "1 turns it off; 4 to 16 learns faster.",
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
        "Train only these layers, one per line, each with its own rank and alpha if you like: attn2.to_k rank=4 "
        "alpha=2. A name is the end of a layer's path; * matches any characters.",
        group="adapter",
        advanced=True,
        multiline=True,
    )

    # Optimization
    batch_size: int | None = setting(
        None,
        "Batch size",
        "Images processed at once. More makes training steadier but needs more memory; gradient accumulation has the "
        "same effect without it.",
        group="training",
        step=1,
        aliases=("train_batch_size", "per_device_train_batch_size"),
        ge=1,
        le=64,
    )
    gradient_accumulation_steps: int | None = setting(
        None,
        "Gradient accumulation",
        "Batches averaged into one step. Higher makes training steadier but slower; batch size times this should be 4 "
        "to 8.",
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
        "How many times every image is shown. Set this or max_train_steps, not both.",
        group="training",
        step=1,
        aliases=("num_train_epochs", "max_train_epochs"),
        ge=1,
        le=10_000,
    )
    max_train_steps: int | None = setting(
        None,
        "Steps",
        "Number of optimizer steps. Too few learn too little, too many overfit. Set this or epochs, not both.",
        group="training",
        step=1,
        aliases=("max_steps",),
        ge=1,
        le=1_000_000,
    )
    learning_rate: float | None = setting(
        None,
        "Learning rate",
        "How far each step changes the LoRA: 0.0002 suits SD1.5, 0.0001 larger models. Higher learns faster; halve it "
        "if the loss becomes unstable.",
        group="training",
        step=0.00001,
        gt=0,
        le=1,
    )
    text_encoder_learning_rate: float | None = setting(
        None,
        "Text encoder learning rate",
        "Learning rate of the text encoders, if they are trained. Half of the model's is usual.",
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
        "Steps over which the learning rate rises from zero to its full value. 5 to 10 % of all steps is usual.",
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
        "Pulls the LoRA's weights towards zero to reduce overfitting. Higher pulls harder; 0 turns it off.",
        group="training",
        advanced=True,
        step=0.01,
        ge=0.0,
        le=1.0,
    )
    max_grad_norm: float = setting(
        1.0,
        "Gradient clipping",
        "Gradients with a norm above this are scaled down to it, which prevents sudden jumps. Lower is more cautious.",
        group="training",
        advanced=True,
        step=0.1,
        ge=0.01,
        le=1000.0,
    )
    mixed_precision: Literal["auto", "fp32", "fp16", "bf16"] = setting(
        "auto",
        "Precision",
        "Number format of the computation. The LoRA's own weights are always trained in fp32.",
        group="training",
        advanced=True,
        value_aliases=PRECISION_NAMES,
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Needs much less memory, but about a third more time.",
        group="training",
        advanced=True,
    )
    seed: int = setting(
        42,
        "Seed",
        "Seed of all random numbers: the same seed and settings give the same LoRA.",
        group="training",
        step=1,
        ge=0,
        le=2**63 - 1,
    )
    cache_size_gb: float = setting(
        20.0,
        "Cache size",
        "Disk space in GB for the cache of encoded images and captions. When it is exceeded, the entries unused for "
        "longest are deleted.",
        group="output",
        advanced=True,
        step=1.0,
        ge=0.0,
        le=10_000.0,
    )
    save_precision: Literal["fp16", "fp32"] = setting(
        "fp16",
        "Precision of the file",
        "fp16 halves the file size and is precise enough for use; fp32 saves the weights exactly.",
        group="output",
        advanced=True,
        value_aliases=PRECISION_NAMES,
    )

    # Samples during training
    sample_prompts: str = setting(
        "",
        "Sample prompts",
        "Prompts for the samples drawn during training, one per line. If empty, the first captions of the dataset are "
        "used.",
        group="samples",
        multiline=True,
    )
    sample_negative_prompt: str = setting(
        "",
        "Negative prompt",
        "What samples should not show. Only affects models that are sampled with a CFG above 1.",
        group="samples",
        advanced=True,
        multiline=True,
    )
    sample_every_n_steps: int | None = setting(
        None,
        "Sample every",
        "Steps between two rounds of samples. Lower shows progress more often, but takes more time.",
        group="samples",
        advanced=True,
        step=1,
        ge=1,
        le=1_000_000,
    )
    sample_steps: int = setting(
        20,
        "Sampling steps",
        "Sampler steps for each sample. Higher takes more time.",
        group="samples",
        advanced=True,
        step=1,
        ge=1,
        le=200,
    )
    sample_cfg: float | None = setting(
        None,
        "Sample CFG",
        "Guidance scale of samples: higher follows the prompt more closely.",
        group="samples",
        advanced=True,
        step=0.5,
        gt=0,
        le=100,
    )
    sample_sampler: str = setting(
        "euler", "Sampler", "The sampler for samples, by its name in ComfyUI.", group="samples", advanced=True
    )
    sample_scheduler: str = setting(
        "normal",
        "Scheduler",
        "The scheduler (noise schedule) for samples, by its name in ComfyUI.",
        group="samples",
        advanced=True,
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
        """The settings of the dataset, without those of the training."""
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
"""Settings that come last because they are newer: saved workflows store widget values by position."""

_described = describe_settings(TrainingConfig)
SETTINGS: dict[str, Setting] = {
    name: _described[name] for name in (*(name for name in _described if name not in _LAST), *_LAST)
}
"""The description of each field by its key, in the order of widgets and config files."""

OF_OTHER_NODES = (
    *("base_model", "output_dir", "output_name", "resume_from_checkpoint", "continue_from"),
    *DataSettings.model_fields,
)
"""Settings that, in ComfyUI, come from Load Dataset, Train LoRA or the connected model instead of Configure LoRA."""
