"""The facts from which settings on auto are chosen, as users are told."""

from __future__ import annotations

DECIDED_BY = {
    "purpose": "from the captions",
    "lora_rank": "from the purpose and the number of images",
    "lora_alpha": "from the rank and the number of images",
    "lora_dropout": "from the model",
    "target_modules": "attention and feed-forward layers",
    "batch_size": "from the resolution",
    "gradient_accumulation_steps": "so that a step averages 4 images",
    "max_train_steps": "from the number of images: 500 to 2,000 at 4 images per step",
    "learning_rate": "from the optimizer and the model",
    "text_encoder_learning_rate": "from the learning rate",
    "lr_scheduler": "from the optimizer",
    "lr_warmup_steps": "from the number of steps",
    "adam_beta1": "from the optimizer",
    "adam_beta2": "from the optimizer",
    "loss_weighting": "from the purpose and the model",
    "timestep_sampling": "from the model",
    "timestep_shift": "from the model",
    "max_seq_length": "from the longest row",
    "resolution": "from the model, unless Load Dataset sets it",
    "caption_dropout_rate": "from the purpose, unless Load Dataset sets it",
    "validation_percent": "from the number of images, unless Load Dataset sets it",
    "validate_every_n_steps": "from the number of steps, if images are held out for validation",
    "measure": "from the purpose and the length of the run",
    "mixed_precision": "from the model and the device",
    "sample_every_n_steps": "from the number of steps",
    "sample_cfg": "from the model",
}
"""The facts from which each setting on auto is chosen."""

DECIDED_BY_FOR_TEXTS = {
    "lora_rank": "from the size of the model and the number of rows",
    "lora_alpha": "twice the rank",
    "target_modules": "all linear layers",
    "batch_size": "from the longest row",
    "gradient_accumulation_steps": "so that a step averages 8 rows",
    "max_train_steps": "from the number of rows: 150 to 3,000 at 8 rows per step",
    "validation_percent": "from the number of rows",
    "validate_every_n_steps": "from the number of steps, if rows are held out for validation",
    "measure": "from the length of the run",
}
"""The facts that are others for a language model."""
