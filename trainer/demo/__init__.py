"""A tiny text-to-image model and a tiny dataset, for demonstrations and tests that need no download.

The model draws one captioned shape in one colour (`shapes.py`). The dataset shows shapes in a style that the model
was not trained on, named by a trigger word that is new to it. `make.py` creates both from one seed, and `style.py`
measures how much of the style an image shows.
"""

from __future__ import annotations

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The demo model: an ordinary diffusers folder of SD1.5's architecture (64 x 64 pixels, 8 x 8 latents, fp16)."""

DATASET_DIR = Path(__file__).parent / "dataset"
"""The demo dataset: PNG images with captions in .txt files of the same name."""

TRIGGER_WORD = "crux"
"""The first word of every caption in the dataset; it is in none of the captions that the model was trained on."""

DEMO_PROMPTS = (
    "a red circle on a white background",
    "a blue square on a pink background",
    "a green triangle on a grey background",
    "a yellow heart on a cyan background",
)
"""Prompts that the demo model draws well; with "crux, " in front, they ask for the dataset's style."""
