"""A config with every value decided."""

from __future__ import annotations

from .adapter_settings import TargetModules
from .objective_settings import LossWeighting
from .optimizer_settings import ScheduleName
from .output_settings import Purpose
from .schema import TrainingConfig


class ResolvedConfig(TrainingConfig):
    """A config with nothing left to choose except `mixed_precision`, which depends on the device, and
    `timestep_shift`, which the base model chooses.

    The length is always in `max_train_steps`, the warmup in `lr_warmup_steps` and the steps between checkpoints in
    `save_steps`, while `epochs` and `lr_warmup_ratio` are None and `save_every_n_epochs` is 0, so that it is a valid
    config itself. The betas are None for an optimizer without betas.

    For a language model, `purpose` stays auto, `resolution` is None and what concerns noise levels and captions has no
    effect; for images the settings of texts have none.
    """

    purpose: Purpose
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    target_modules: TargetModules
    batch_size: int
    gradient_accumulation_steps: int
    max_train_steps: int
    learning_rate: float
    lr_warmup_steps: int
    lr_scheduler: ScheduleName
    loss_weighting: LossWeighting
    resolution: int | None
    caption_dropout_rate: float
    validation_percent: float
    sample_every_n_steps: int
    validate_every_n_steps: int
    sample_cfg: float
