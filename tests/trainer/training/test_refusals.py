"""What a run would refuse is refused before anything is encoded, and found by `check` without any weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from lora_crucible.cli.exit_status import ExitStatus
from lora_crucible.cli.main import main
from lora_crucible.demo import MODEL_DIR
from lora_crucible.models.diffusers.folder import read_folder
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.models.diffusers.pipeline import Pipeline

REFUSED = {
    "output_name: .hidden": "output_name '.hidden' cannot be used",
    "output_name: con": "Windows reserves 'con'",
    "sample_sampler: euler_a": "sample_sampler is 'euler_a'.*Choose one of these: euler",
    "layer_patterns: no_such_layer": "layer_patterns has 'no_such_layer'",
    "timestep_shift: 3": "timestep_shift is 3",
    "resume_from_checkpoint: /nowhere/step_000100": "/nowhere/step_000100",
    "continue_from: /nowhere/a.safetensors": "/nowhere/a.safetensors",
    "lr_warmup_steps: 9": "lr_warmup_steps = 9",
    "mask_source: file": "no mask file",
}

STATUS = {"continue_from": ExitStatus.MODEL, "mask_source": ExitStatus.DATA}
"""The exit status for each setting whose value is right, but not what it stands for."""


@pytest.mark.parametrize("line", REFUSED)
def test_check_and_train_refuse_the_same_before_anything_is_encoded(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"base_model: demo\ntrain_data_dir: demo\noutput_dir: {tmp_path / 'out'}\nmax_train_steps: 5\n{line}\n"
    )
    said = []
    for command in ("check", "train"):
        assert main([command, str(config)]) == STATUS.get(line.split(":")[0], ExitStatus.SETTINGS)
        said.append(capsys.readouterr().err.split("error: ")[1])
    assert said[0] == said[1]
    assert re.search(REFUSED[line], said[0])
    assert not list((tmp_path / "out").glob(".cache/*/*.safetensors"))
    assert not (tmp_path / "out" / "lora").exists()


def test_a_model_without_weights_has_the_layers_of_the_model() -> None:
    outline, whole = DiffusersBaseModel("demo", weights=False), DiffusersBaseModel("demo")
    assert outline.layer_shapes() == whole.layer_shapes()
    outlined = Pipeline(read_folder(MODEL_DIR, "demo"), weights=False)
    assert {parameter.device.type for parameter in outlined.denoiser.parameters()} == {"meta"}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_levels_are_finite_where_no_signal_is_left(prediction_type: str) -> None:
    base_model = DiffusersBaseModel("demo")
    scheduler = base_model._pipeline.whole.scheduler
    base_model._pipeline.whole.scheduler = type(scheduler).from_config(
        scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type=prediction_type
    )
    with base_model.session("fp32"):
        assert torch.isfinite(base_model._sigmas).all()
        assert (base_model._sigmas.diff() > 0).all()
        assert base_model._sigmas[-1] > 1000
