"""Runs on denoisers that are split over two processes, against the same run of one process with all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from several import run_together
from tiny_pipelines import TEXT, narrow_flux_loras, pipeline, randomise

SETTINGS = {
    "max_train_steps": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "resolution": 64,
    "learning_rate": 1e-3,
    "lora_dropout": 0.1,
    "caption_dropout_rate": 0.3,
    "sample_every_n_steps": 4,
    "sample_steps": 2,
    "sample_prompts": "a red circle\na blue square",
    "validate_every_n_steps": 2,
    "save_precision": "fp32",
    "save_steps": 2,
    "measure": "never",
    "memory": "fixed",
    "output_name": "lora",
}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_curves", "checkpoints_in_time")]


class Stop(BaseException):
    pass


@pytest.fixture(autouse=True)
def any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_flux_loras(monkeypatch)


def train(
    folder: Path,
    base: Path,
    split: bool,
    stepped: Callable[[Any, int], None] = lambda report, steps: None,
    **values: Any,
) -> RunResult:
    config = parse_config({**SETTINGS, "base_model": str(base), "train_data_dir": "demo", **values})
    data = load_dataset(DataSettings(train_data_dir="demo", validation_percent=20, resolution=64))
    model = DiffusersBaseModel(str(base), split=split)
    return train_or_resume(model, data, config, folder, folder, Callbacks(stepped=stepped))


def saved(name: str, folder: Path) -> Path:
    """Save a tiny pipeline whose text encoders know all tokens of the demo captions."""
    # With one channel in a group, the norm takes out what the layer before it adds: gradients would be rounding errors.
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    made = pipeline(name, randomise(unet) if name == "sd15" else None)
    for part in made.components.values():
        if type(part).__name__.startswith("CLIPText"):
            part.resize_token_embeddings(len(made.tokenizer))
    made.save_pretrained(folder)
    return folder


def assert_same_lora(one: Path, other: Path) -> None:
    made, expected = read_lora(one)[0], read_lora(other)[0]
    assert made.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(made[key], expected[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sd15", {"target_modules": "linear_and_convolution", "gradient_checkpointing": True}),
        ("sdxl", {"train_text_encoder": True, "caption_dropout_rate": 0}),
        ("sd3", {}),
        ("flux1", {"gradient_checkpointing": True}),
        ("qwen_image", {}),
        ("z_image", {"algorithm": "lokr", "lora_dropout": 0, "caption_dropout_rate": 0}),
        ("wan", {}),
    ],
)
def test_as_one(tmp_path: Path, name: str, values: dict[str, Any]) -> None:
    base = saved(name, tmp_path / "base")
    alone = train(tmp_path / "alone", base, False, **values)

    def work(processes: Any) -> None:
        result = train(tmp_path / "together", base, True, **values)
        assert processes.joint
        assert result.losses == pytest.approx(alone.losses, abs=1e-5)
        if processes.is_main:
            assert [one.error for one in result.rounds] == pytest.approx([one.error for one in alone.rounds], abs=1e-5)
            for one, other in zip(result.samples, alone.samples, strict=True):
                torch.testing.assert_close(one, other, atol=1e-3, rtol=0)

    run_together(2, work, tmp_path / "outputs")
    assert_same_lora(tmp_path / "together" / "lora.safetensors", alone.files.lora)


def test_each_resumes_what_the_other_began(tmp_path: Path) -> None:
    base = saved("flux1", tmp_path / "base")
    alone = train(tmp_path / "alone", base, False)

    def stepped(report: Any, steps: int) -> None:
        if report.step == 3:
            raise Stop

    def begin(processes: Any) -> None:
        with pytest.raises(BaseException):  # noqa: B017, PT011 - one stops by itself, and the other with it
            train(tmp_path / "split_first", base, True, stepped)

    def go_on(processes: Any) -> None:
        train(tmp_path / "alone_first", base, True)

    run_together(2, begin, tmp_path / "outputs")
    resumed = train(tmp_path / "split_first", base, False)
    assert_same_lora(resumed.files.lora, alone.files.lora)
    assert resumed.losses == pytest.approx(alone.losses, abs=1e-5)
    with pytest.raises(Stop):
        train(tmp_path / "alone_first", base, False, stepped)
    run_together(2, go_on, tmp_path / "outputs")
    assert_same_lora(tmp_path / "alone_first" / "lora.safetensors", alone.files.lora)


def test_what_cannot_be_split_is_refused_by_name(tmp_path: Path) -> None:
    base = saved("sd15", tmp_path / "base")

    def work(processes: Any) -> None:
        with pytest.raises(CrucibleError, match="algorithm is dora"):
            train(tmp_path / "together", base, True, algorithm="dora", lora_dropout=0)

    run_together(2, work, tmp_path / "outputs")
