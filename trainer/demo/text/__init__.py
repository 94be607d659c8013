"""A tiny language model and a tiny dataset of texts, for demonstrations and tests that need no download.

The model turns a few words into a prompt for the demo picture model, and talks about coloured shapes (`world.py`). The
dataset teaches it new words, and to begin with a trigger word (`new_words.py`). `make.py` creates both from one seed.
"""

from __future__ import annotations

from pathlib import Path

from .new_words import (
    NEW_WORDS,
    TRIGGER_WORD,
    held_out,
    regularization_prompts,
    rows,
    unrelated_prompts,
)
from .world import Exchange

__all__ = [
    "DATASET_DIR",
    "NEW_WORDS",
    "REGULARIZATION_DIR",
    "SETTINGS",
    "TRIGGER_WORD",
    "Exchange",
    "held_out",
    "model_folder",
    "regularization_prompts",
    "rows",
    "unrelated_prompts",
]

DATASET_DIR = Path(__file__).parent / "dataset"
"""The demo dataset of texts: one JSONL file with the keys `prompt` and `completion`."""

REGULARIZATION_DIR = Path(__file__).parent / "regularization"
"""Prompts about what the model should not forget: one JSONL file with the key `prompt`."""


SETTINGS: dict[str, object] = {
    "task_type": "text-generation",
    "base_model": "demo",
    "train_data_dir": "demo",
    "reg_data_dir": "demo",
    "regularization_rows": True,
    "target_modules": "linear",
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0,
    "learning_rate": 5e-3,
    "max_train_steps": 250,
    "batch_size": 8,
    "validation_percent": 0,
    "max_new_tokens": 48,
}
"""The settings of the demo: those of a far smaller model than any real one. No row is held out for validation, because
`held_out` has 30 prompts for that, and each row of the 60 is needed to learn its word."""


def model_folder() -> Path:
    """Return the demo language model: an ordinary transformers folder of Qwen3's classes (fp16, 2 MB)."""
    return Path(__file__).parent / "model"
