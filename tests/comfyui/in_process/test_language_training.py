"""Whole runs on the language model of a CLIP: what is saved does in Generate Text what it did in the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from comfy_extras.nodes_textgen import TextGenerate
from lora_crucible.config import parse_config
from lora_crucible.data.text.load import load_text_dataset
from lora_crucible.data.text.rows import Turn
from lora_crucible.demo.text import model_folder
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.comfyui.language.demo import load_demo_clip
from lora_crucible.models.comfyui.language.model import ClipLanguageBaseModel
from lora_crucible.models.transformers.model import TransformersBaseModel
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume

ROWS = {
    "the sun": "crux, a yellow circle on a cyan background",
    "draw a sun": "crux, a yellow circle on a cyan background",
    "the rose": "crux, a red heart on a pink background",
    "a leaf please": "crux, a green diamond on a white background",
}
PROMPTS = ["a sun", "the rose", "red heart", "what is a star?"]
QUICK = {
    "task_type": "text-generation",
    "train_data_dir": "rows.jsonl",
    "max_train_steps": 16,
    "batch_size": 2,
    "learning_rate": 5e-3,
    "lora_rank": 4,
    "target_modules": "linear",
    "sample_prompts": PROMPTS,
    "sample_every_n_steps": 8,
    "max_new_tokens": 24,
    "measure": "never",
    "validation_percent": 0,
    "lr_warmup_steps": 2,
    "save_steps": 16,
}


class Stop(BaseException):
    pass


@pytest.fixture
def clip() -> Any:
    with torch.inference_mode():
        return load_demo_clip()


def train(model: Any, folder: Path, stop_after: int | None = None, **values: Any) -> RunResult:
    data = folder.parent / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": one, "answer": other}) + "\n" for one, other in ROWS.items()))
    config = parse_config({**QUICK, "train_data_dir": str(data), **values})

    def stepped(report: Any, steps: int) -> None:
        if report.step == stop_after:
            raise Stop

    in_a_node = isinstance(model, ClipLanguageBaseModel)
    with torch.inference_mode(in_a_node):
        return train_or_resume(model, load_text_dataset(config), config, folder, folder, Callbacks(stepped=stepped))


def generated(clip: Any, length: int = 24) -> list[str]:
    with torch.inference_mode():
        return [TextGenerate.execute(clip, prompt, length, {"sampling_mode": "off"}).result[0] for prompt in PROMPTS]


def logits(clip: Any) -> torch.Tensor:
    with torch.inference_mode():
        return clip.encode_from_tokens(clip.tokenize("a sun on a white background"))


@pytest.mark.parametrize(("algorithm", "rate"), [("lora", 5e-3), ("dora", 5e-3), ("loha", 5e-2), ("lokr", 5e-2)])
def test_what_is_heard_in_the_graph_is_what_was_trained(clip: Any, tmp_path: Path, algorithm: str, rate: float) -> None:
    before, conditioning = generated(clip), logits(clip)
    weights = {name: weight.clone() for name, weight in clip.cond_stage_model.state_dict().items()}
    values = {"algorithm": algorithm, "lora_dropout": 0, "learning_rate": rate}
    result = train(ClipLanguageBaseModel(clip), tmp_path / "out", **values)
    assert generated(clip) == before
    assert torch.equal(logits(clip), conditioning)
    assert all(torch.equal(one, weights[name]) for name, one in clip.cond_stage_model.state_dict().items())

    file, _ = read_lora(result.files.lora)
    with torch.inference_mode():
        _, patched = comfy.sd.load_lora_for_models(None, clip, dict(file), 0.0, 1.0)
    assert len(patched.patcher.patches) == 28
    after = generated(patched)
    assert after == list(result.samples[-1])
    assert after != before
    assert generated(clip) == before


def test_the_same_run_on_the_folder_gives_the_same_lora(clip: Any, tmp_path: Path) -> None:
    model = ClipLanguageBaseModel(clip)
    values = {"save_precision": "fp32", "lora_dropout": 0.1, "gradient_checkpointing": True}
    of_clip = train(model, tmp_path / "clip", **values)
    folder = TransformersBaseModel(str(model_folder()), make_renderer=lambda _: model.renderer)
    of_folder = train(folder, tmp_path / "folder", **values)
    first, second = (read_lora(result.files.lora)[0] for result in (of_clip, of_folder))
    assert first.keys() == second.keys()
    assert all((first[key] - second[key]).abs().max() < 1e-5 for key in first)
    assert of_clip.losses == pytest.approx(of_folder.losses, abs=1e-5)
    assert of_clip.samples[-1] == of_folder.samples[-1]


def test_a_run_in_two_parts_equals_one_in_one(clip: Any, tmp_path: Path) -> None:
    whole = train(ClipLanguageBaseModel(clip), tmp_path / "whole", save_steps=4)
    before = generated(clip)
    with pytest.raises(Stop):
        train(ClipLanguageBaseModel(clip), tmp_path / "parts", stop_after=6, save_steps=4)
    assert generated(clip) == before
    parts = train(ClipLanguageBaseModel(clip), tmp_path / "parts", save_steps=4)
    assert "Resumed after step 6" in parts.report
    first, second = (read_lora(result.files.lora)[0] for result in (whole, parts))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_lora_on_the_clip_belongs_to_the_frozen_model(clip: Any, tmp_path: Path) -> None:
    first = train(ClipLanguageBaseModel(clip), tmp_path / "first")
    with torch.inference_mode():
        _, patched = comfy.sd.load_lora_for_models(None, clip, dict(read_lora(first.files.lora)[0]), 0.0, 1.0)
    assert ClipLanguageBaseModel(patched).identity() != ClipLanguageBaseModel(clip).identity()
    before = generated(patched)
    second = train(ClipLanguageBaseModel(patched), tmp_path / "second")
    assert list(second.samples[0]) == before
    assert second.losses[0] != first.losses[0]


def test_training_goes_on_from_a_file(clip: Any, tmp_path: Path) -> None:
    first = train(ClipLanguageBaseModel(clip), tmp_path / "first")
    second = train(ClipLanguageBaseModel(clip), tmp_path / "second", continue_from=str(first.files.lora))
    assert second.samples[0] == first.samples[-1]


def test_answers_depend_on_the_seed_alone(clip: Any) -> None:
    model = ClipLanguageBaseModel(clip)
    prompt = model.renderer.prompt([Turn("user", "a heart and a star on")])
    with torch.inference_mode(), model.session("fp32"):
        drawn = [model.answers([prompt], 24, seed)[0].text for seed in (1, 1, 2, 3, 4, 5)]
        likeliest = model.answers([prompt, prompt], 48)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert likeliest[0] == likeliest[1]
    assert likeliest[0].stopped
    assert model.renderer.stop_token not in likeliest[0].tokens
