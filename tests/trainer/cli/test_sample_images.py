"""`sample` draws what a run would have drawn, with LoRAs in the form of any trainer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lora_crucible.cli.main import main
from PIL import Image

PROMPTS = ("crux, a red circle", "a blue square")
CONFIG = """\
base_model: demo
train_data_dir: demo
output_dir: {folder}
output_name: mine
max_train_steps: 2
batch_size: 2
learning_rate: 0.02
seed: 7
sample_prompts: ["crux, a red circle", "a blue square"]
sample_steps: 2
sample_cfg: 3
sample_negative_prompt: blurred
save_precision: fp32
measure: never
report_to: none
"""
LIKE_THE_RUN = ("--seed", "7", "--steps", "2", "--cfg", "3", "--negative", "blurred")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def sampled(folder: Path, *arguments: str) -> np.ndarray:
    output = folder / "drawn.png"
    output.unlink(missing_ok=True)
    prompts = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    assert main(["sample", "--base_model", "demo", *prompts, "--output", str(output), *arguments]) == 0
    return pixels(output)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "c.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["train", str(folder / "c.yaml")]) == 0
    return folder


def of_run(run: Path, step: int) -> np.ndarray:
    """The samples of a round below each other."""
    samples = run / "mine" / "samples"
    return np.concatenate([pixels(samples / f"step_{step:06}_{number:02}.png") for number in (1, 2)])


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(abs(one - other).max())


def test_left_is_the_runs_first_sample_and_right_its_last(run, tmp_path, capsys):
    both = sampled(tmp_path, "--lora", str(run / "mine.safetensors"), *LIKE_THE_RUN)
    left, right = np.split(both, 2, axis=1)
    assert difference(of_run(run, 0), of_run(run, 2)) > 20  # the LoRA does something
    assert difference(left, of_run(run, 0)) <= 2
    assert difference(right, of_run(run, 2)) <= 2
    assert "right: with mine.safetensors:1" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_loras_in_the_forms_of_other_trainers(run, tmp_path, form):
    other = tmp_path / "other.safetensors"
    lora = str(run / "mine.safetensors")
    assert main(["convert", lora, "--to", form, "--output", str(other)]) == 0
    assert (
        difference(
            sampled(tmp_path, "--lora", str(other), *LIKE_THE_RUN), sampled(tmp_path, "--lora", lora, *LIKE_THE_RUN)
        )
        <= 2
    )


@pytest.mark.slow
def test_strengths_add_up_and_nothing_is_the_base_alone(run, tmp_path):
    lora = str(run / "mine.safetensors")
    halves = sampled(tmp_path, "--lora", f"{lora}:0.5", "--lora", f"{lora}:0.5", *LIKE_THE_RUN)
    half = sampled(tmp_path, "--lora", f"{lora}:0.5", *LIKE_THE_RUN)
    whole = sampled(tmp_path, "--lora", lora, *LIKE_THE_RUN)
    assert difference(halves, whole) <= 2
    assert difference(half, whole) > 5
    alone = sampled(tmp_path, *LIKE_THE_RUN)
    assert alone.shape == (128, 64, 3)
    assert difference(alone, of_run(run, 0)) <= 2


def test_size_and_json_and_files_that_are_there(run, tmp_path, capsys):
    output = tmp_path / "a.png"
    output.write_bytes(b"mine")
    arguments = ["--prompt", "a", "--steps", "1", "--width", "128", "--height", "64", "--output", str(output), "--json"]
    assert main(["sample", "--base_model", "demo", *arguments]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["command"], told["exit"], told["columns"]) == ("sample", 0, 1)
    assert Image.open(told["output"]).size == (128, 64)
    assert output.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "status", "facts"),
    [
        ([], 2, ("no --prompt", "--prompt")),
        (["--prompt", "a", "--max_new_tokens", "5"], 2, ("--max_new_tokens", "makes images")),
        (["--prompt", "a", "--steps", "0"], 2, ("sample_steps = 0", "from 1 to 200")),
        (["--prompt", "a", "--width", "65"], 2, ("--width is 65", "steps of 8")),
        (["--prompt", "a", "--output", "a.jpg"], 2, ("a.jpg", "PNG")),
        (["--prompt", "a", "--sampler", "uni_pc_3"], 4, ("uni_pc_3", "euler")),
        (["--prompt", "a", "--lora", "none.safetensors"], 4, ("none.safetensors",)),
    ],
    ids=lambda value: "" if isinstance(value, tuple | int) else " ".join(value[-2:]),
)
def test_what_cannot_be_drawn_is_refused(arguments, status, facts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--base_model", "demo", *arguments]) == status
    said = capsys.readouterr().err
    assert all(fact in said for fact in facts), said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
