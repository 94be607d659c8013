"""A tiny text-to-image model and a tiny dataset, for demonstrations and tests that need no download.

The model draws one captioned shape in one colour (`shapes.py`); the dataset shows shapes in a style that the
model has never drawn, named by a trigger word that it has never read. `make.py` made both from one seed, and
`style.py` measures how much of the style a picture shows.
"""

from __future__ import annotations

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""An ordinary diffusers folder, SD1.5 in kind: 64 x 64 pixels, 8 x 8 latents, fp16 safetensors."""

DATASET_DIR = Path(__file__).parent / "dataset"
"""PNG pictures with captions in .txt files of the same name."""

TRIGGER_WORD = "crux"
"""First word of every caption of the dataset; in none of the captions that the model was trained on."""

DEMO_PROMPTS = (
    "a red circle on a white background",
    "a blue square on a pink background",
    "a green triangle on a grey background",
    "a yellow heart on a cyan background",
)
"""Prompts that the demo model draws well; put "crux, " in front to ask for the style."""
