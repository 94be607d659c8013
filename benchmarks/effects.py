"""Measure the effects of text encoder training and prior preservation on the demo model.

    <python with the pack's standalone packages> benchmarks/effects.py [--output FILE.json]

`learned` and `leaked`: how far images move towards the dataset's style with and without the trigger word (1 is all the
way). `drift`: the mean difference, of 255, between images of the base model and of the LoRA, drawn without the trigger
word from the same prompts and seeds. Runs that are compared have the same seed and number of steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from shared import circumstances, load_trainer, save

SHORT, WHOLE = 150, 400
REGULARIZATION_IMAGES = 32

RUNS: dict[str, dict[str, Any]] = {
    "short": {"max_train_steps": SHORT},
    "short_with_text_encoder": {"max_train_steps": SHORT, "train_text_encoder": True},
    "whole": {"max_train_steps": WHOLE},
    "whole_with_regularization": {"max_train_steps": WHOLE, "reg_data_dir": "of the base"},
}


def draw_regularization(folder: Path) -> None:
    """Draw regularization images with the base model, from captions without the trigger word."""
    from diffusers import StableDiffusionPipeline
    from lora_crucible.demo import MODEL_DIR
    from lora_crucible.demo.shapes import COLOURS, SHAPES

    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for number in range(REGULARIZATION_IMAGES):
        names = list(COLOURS)
        colour, shape = names[number % len(names)], list(SHAPES)[number % len(SHAPES)]
        caption = f"a {colour} {shape} on a white background"
        seed = torch.Generator().manual_seed(1000 + number)
        picture = pipeline(caption, num_inference_steps=20, guidance_scale=4.0, generator=seed).images[0]
        picture.save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(caption)


def measured(name: str, regularization: Path) -> dict[str, Any]:
    from lora_crucible.config import parse_config
    from lora_crucible.data.images.load import load_dataset
    from lora_crucible.demo.showcase import measure
    from lora_crucible.models.diffusers.model import DiffusersBaseModel
    from lora_crucible.runs.paths import RunFiles
    from lora_crucible.training.plan import plan_run
    from lora_crucible.training.run import run_training

    values = dict(RUNS[name])
    if "reg_data_dir" in values:
        values["reg_data_dir"] = str(regularization)
    config = parse_config({"base_model": "demo", "train_data_dir": "demo", "measure": "never", **values})
    with tempfile.TemporaryDirectory() as folder:
        files = RunFiles.claim("effect", Path(folder), Path(folder))
        base_model = DiffusersBaseModel("demo")
        run_training(base_model, plan_run(base_model, load_dataset(config.data), config), files)
        outcome = measure(files.lora)
    drift = (outcome.lora_plain - outcome.base_plain).abs().mean().item() * 255
    return {
        "run": name,
        "settings": RUNS[name],
        "learned": round(outcome.learned, 3),
        "leaked": round(outcome.leaked, 3),
        "drift": round(drift, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    output = parser.parse_args().output
    load_trainer()
    result: dict[str, Any] = {**circumstances(), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        draw_regularization(Path(folder))
        for name in RUNS:
            result["rows"].append(measured(name, Path(folder)))
            print(result["rows"][-1], flush=True)
    save(result, output)


if __name__ == "__main__":
    main()
