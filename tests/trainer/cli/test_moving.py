"""A run goes on where its folder was moved to, as from a rented machine to another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lora_crucible.cli.main import main
from lora_crucible.cli.opening import _load, open_base_model
from lora_crucible.config.yaml_file import read_config
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.training.resume import train_or_resume
from PIL import Image

SETTINGS = {
    "base_model": "demo",
    "train_data_dir": "pictures",
    "output_dir": "out",
    "output_name": "mine",
    "max_train_steps": 4,
    "batch_size": 2,
    "sample_prompts": "a",
    "sample_steps": 1,
    "sample_every_n_steps": 2,
    "save_precision": "fp32",
    "trigger_word": "ohwx",
    "measure": "never",
    "report_to": "none",
}


def make_project(folder: Path) -> Path:
    """Make a folder with a config and its pictures; return the config."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 90, 200 - 40 * number)).save(folder / "pictures" / f"{number}.png")
        (folder / "pictures" / f"{number}.txt").write_text(f"ohwx, picture {number}")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    return config


def stop_after_two_steps(config: Path) -> None:
    def stop(report, steps) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    read = read_config(config)
    out = Path(read.output_dir)
    with pytest.raises(KeyboardInterrupt):
        train_or_resume(open_base_model(read, lambda: None), _load(read), read, out, out, Callbacks(stepped=stop))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["everything", "only the output folder"])
def test_a_moved_run_goes_on_to_the_same_lora(what, tmp_path, capsys):
    whole = make_project(tmp_path / "whole")
    assert main(["train", str(whole)]) == 0
    expected = read_lora(tmp_path / "whole" / "out" / "mine.safetensors")[0]
    first, second = tmp_path / "first machine", tmp_path / "second" / "machine"
    stop_after_two_steps(make_project(first))
    options = []
    if what == "everything":
        second.parent.mkdir()
        first.rename(second)
    else:  # the volume has the output; pictures and config are copied to the new machine again
        make_project(second)
        (tmp_path / "volume").mkdir()
        shutil.move(first / "out", tmp_path / "volume" / "out")
        shutil.rmtree(first)
        options = ["--set", f"output_dir={tmp_path / 'volume' / 'out'}"]
    capsys.readouterr()
    assert main(["train", str(second / "config.yaml"), *options]) == 0
    assert "Resumed after step 2 of mine" in capsys.readouterr().out
    out = second / "out" if what == "everything" else tmp_path / "volume" / "out"
    found = read_lora(out / "mine.safetensors")[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not (out / "mine_2").exists()
