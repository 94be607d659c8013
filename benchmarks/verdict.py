"""Check the verdict at the end of a run, with trainings of the demo model that are known to be good or bad.

    <python with the pack's standalone packages> benchmarks/verdict.py [--only NAME ...] [--output FILE.json]

Every run is added to the file as soon as it is done, and replaces an earlier one of the same name.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shared import load_trainer

VALIDATION = {"validation_percent": 20}
"""Settings that hold out 4 of the demo's 20 images for validation and train on 16."""

RUNS: dict[str, dict[str, Any]] = {
    "defaults": {"expected": "good", "config": VALIDATION},
    "defaults_without_validation": {"expected": "good", "config": {}},
    "tenfold_learning_rate": {"expected": "too much", "config": {**VALIDATION, "learning_rate": 2e-2}},
    "tenfold_steps": {"expected": "too much", "config": {**VALIDATION, "max_train_steps": 4000}},
    "tenfold_learning_rate_without_validation": {"expected": "too much", "config": {"learning_rate": 2e-2}},
    "twentieth_of_the_steps": {
        "expected": "too little",
        "config": {**VALIDATION, "max_train_steps": 20, "measure": "always"},
    },
    "fifth_of_the_steps": {"expected": "too little", "config": {**VALIDATION, "max_train_steps": 80}},
    "hundredth_of_the_learning_rate": {
        "expected": "too little",
        "config": {**VALIDATION, "max_train_steps": 200, "learning_rate": 2e-5},
    },
    "five_images_and_a_high_learning_rate": {
        "expected": "too much",
        "images": 5,
        "config": {**VALIDATION, "max_train_steps": 300, "learning_rate": 5e-3},
    },
}


def train(name: str, folder: Path) -> dict[str, Any]:
    from lora_crucible.config import parse_config
    from lora_crucible.data.images.load import load_dataset
    from lora_crucible.demo.showcase import measure
    from lora_crucible.models.diffusers.model import DiffusersBaseModel
    from lora_crucible.runs.paths import RunFiles
    from lora_crucible.training.plan import plan_run
    from lora_crucible.training.run import run_training

    run = RUNS[name]
    config = parse_config({"train_data_dir": "demo", **run["config"]})
    dataset = load_dataset(config.data)
    dataset = replace(dataset, images=dataset.images[: run.get("images")])
    files = RunFiles.claim(name, folder, folder)
    started = time.monotonic()
    base_model = DiffusersBaseModel("demo")
    result = run_training(base_model, plan_run(base_model, dataset, config), files)
    seconds = time.monotonic() - started
    last = files.folder / "last.safetensors"
    row = {
        "run": name,
        "settings": run["config"],
        "images": len(dataset.images),
        "expected": run["expected"],
        "verdict": result.verdict.word,
        "reasons": result.verdict.reasons,
        "advice": result.verdict.advice,
        "steps": len(result.losses),
        "seconds": round(seconds, 1),
        "saved_step": int(result.lora.metadata["ss_steps"]),
        "rounds": [{key: value for key, value in asdict(one).items() if key != "by_timestep"} for one in result.rounds],
        "style_learned": {"file": round(measure(files.lora).learned, 3)},
        "report": result.report.replace(str(folder), ".").splitlines(),
    }
    if last.exists():
        row["style_learned"]["last"] = round(measure(last).learned, 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "verdict.json")
    options = parser.parse_args()
    load_trainer()
    import diffusers
    import torch

    facts = {
        "date": datetime.date.today().isoformat(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            row = train(name, Path(folder))
        print(f"{name}: {row['verdict']} (expected {row['expected']}), {row['seconds']} s")
        done = json.loads(options.output.read_text(encoding="utf-8"))["runs"] if options.output.exists() else []
        rows = {one["run"]: one for one in done} | {name: row}
        ordered = [rows[known] for known in RUNS if known in rows]
        text = json.dumps({"environment": facts, "runs": ordered}, indent=1, ensure_ascii=False)
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
