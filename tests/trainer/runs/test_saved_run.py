"""A run that is saved as a folder trains the same from there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_crucible.config import TrainingConfig, parse_config
from lora_crucible.config.yaml_file import read_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_file import lora_layer, write_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.runs.saved_run import CONFIG, INITIAL, REPORT, ROWS, SavedRun, save_run
from lora_crucible.training.plan import RunPlan, plan_run
from PIL import Image
from toy import Numbers

SETTINGS = {
    "base_model": "demo",
    "train_data_dir": "demo",
    "caption_prefix": "a picture of",
    "validation_percent": 20,
    "max_train_steps": 3,
    "lr_warmup_ratio": 0.5,
    "sample_prompts": "crux, a red circle\ncrux, a blue square",
}


def planned(base_model: DiffusersBaseModel, config: TrainingConfig) -> RunPlan:
    return plan_run(base_model, load_dataset(config.data), config)


def saved(folder: Path, base_model: DiffusersBaseModel, **settings: object) -> tuple[RunPlan, SavedRun]:
    plan = planned(base_model, parse_config({**SETTINGS, **settings}))
    return plan, save_run(folder, plan.dataset, plan.config, ["copy the file too"])


def test_the_config_has_every_value_and_is_planned_the_same(base_model: DiffusersBaseModel, tmp_path: Path):
    plan, run = saved(tmp_path / "mine_run", base_model)
    moved = (tmp_path / "mine_run").rename(tmp_path / "another place")
    config = read_config(moved / CONFIG)
    again = planned(base_model, config)
    where = {"train_data_dir", "output_dir", "caption_source", "caption_prefix"}
    assert again.config.model_dump(exclude=where) == plan.config.model_dump(exclude=where)
    assert [example.captions for example in again.plan.examples] == [one.captions for one in plan.plan.examples]
    assert all(name.startswith("a picture of") for name in again.dataset.captions)
    assert config.train_data_dir == str(moved / "images")
    assert config.output_dir == str(moved / "output")
    assert again.plan.resolved.reasons == {}
    assert {path.name for path in moved.iterdir()} == {CONFIG, REPORT, ROWS, "images"}
    assert run.text + "\n" == (moved / REPORT).read_text(encoding="utf-8")
    for fact in ("Nothing was trained", "mine_run/config.yaml", "16 to train, 4 held out", "copy the file too"):
        assert fact in run.text


def test_what_is_left_out_is_named_with_its_reason(base_model: DiffusersBaseModel, tmp_path: Path):
    folder = tmp_path / "cats"
    folder.mkdir()
    for number in range(8):
        Image.effect_noise((64, 64), 90).save(folder / f"{number}.png")
        (folder / f"{number}.jpg").write_bytes(b"no image")
    _, run = saved(tmp_path / "run", base_model, train_data_dir=str(folder), trigger_word="crux")
    left_out = run.text.partition("Left out")[2]
    assert "8 images were skipped" in left_out
    assert all(f"    {number}.jpg" in left_out for number in range(8))
    assert not list((tmp_path / "run").rglob("*.jpg"))


def test_the_lora_to_continue_from_goes_along(base_model: DiffusersBaseModel, tmp_path: Path):
    key, (out, inputs, *_) = next(
        (k, shape) for k, shape in base_model.layer_shapes().items() if k.endswith("attn1_to_q")
    )
    path = tmp_path / "first.safetensors"
    layer = lora_layer(torch.rand(4, inputs), torch.rand(out, 4), 4.0)
    write_lora(path, {key + suffix: tensor for suffix, tensor in layer.items()}, {})
    _, run = saved(tmp_path / "run", base_model, continue_from=str(path))
    config = read_config(run.folder / CONFIG)
    assert config.continue_from == str(run.folder / INITIAL)
    assert (run.folder / INITIAL).read_bytes() == path.read_bytes()
    assert config.lora_rank == 4
    assert "a copy of first.safetensors" in run.text


def test_nothing_is_overwritten_and_nothing_half_is_left(base_model: DiffusersBaseModel, tmp_path: Path):
    (tmp_path / "run").mkdir()
    with pytest.raises(CrucibleError, match=r"cannot be saved as .*run, because that exists"):
        saved(tmp_path / "run", base_model)
    (tmp_path / "run").rmdir()
    plan = planned(base_model, parse_config(SETTINGS))

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_run(tmp_path / "run", plan.dataset, plan.config, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_texts_are_refused(tmp_path: Path, complete):
    with pytest.raises(CrucibleError, match="only runs on images are saved"):
        save_run(tmp_path / "run", Numbers(), complete())
    assert list(tmp_path.iterdir()) == []
