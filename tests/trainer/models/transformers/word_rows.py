"""Rows of few words for random language models, and the settings of short runs on them."""

ROWS = {
    "red heart": "a red heart",
    "blue star": "a blue star a blue sun",
    "moon": "a moon",
    "sun sun sun": "a sun a sun a star",
}
QUICK = {
    "task_type": "text-generation",
    "max_train_steps": 8,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "sample_every_n_steps": 4,
    "max_new_tokens": 4,
    "save_precision": "fp32",
    "measure": "never",
    "validation_percent": 0,
    "lr_warmup_steps": 3,
    "save_steps": 3,
}
