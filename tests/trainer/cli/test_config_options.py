"""Options override the file, and are checked as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from lora_crucible.cli.config_options import add_config_options, read_config_of
from lora_crucible.cli.main import main
from lora_crucible.config import SETTINGS
from lora_crucible.errors import CrucibleError


def read(tmp_path: Path, text: str, *options: str):
    path = tmp_path / "c.yaml"
    path.write_text("base_model: demo\ntrain_data_dir: demo\n" + text)
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return read_config_of(parser.parse_args([str(path), *options]))[0]


@pytest.mark.parametrize(
    ("text", "options", "name", "value"),
    [
        ("lora_rank: 8\n", ["--set", "lora_rank=16"], "lora_rank", 16),
        ("lora_rank: 8\n", ["--set", "network_dim=16"], "lora_rank", 16),
        ("network_dim: 8\n", ["--set", "lora_rank=auto"], "lora_rank", None),
        ("", ["--set", "learning_rate=2e-4"], "learning_rate", 2e-4),
        ("", ["--set", "sample_prompts=[a cat, a dog]"], "sample_prompts", "a cat\na dog"),
        ("", ["--set", "trigger_word=a = b: c"], "trigger_word", "a = b: c"),
        ("memory: 4\n", ["--set=memory=8 GB"], "memory", "8 GB"),
        ("mixed_precision: fp32\n", ["--bf16"], "mixed_precision", "bf16"),
        ("reserve_memory: 1\n", ["--reserve_memory", "2.5"], "reserve_memory", 2.5),
    ],
)
def test_options_take_precedence(tmp_path, text, options, name, value):
    assert getattr(read(tmp_path, text, *options), name) == value


def test_relative_paths_count_from_where_the_command_was_started(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = read(tmp_path, "", "--set", "output_dir=out")
    assert Path(config.output_dir) == tmp_path / "elsewhere" / "out"
    assert Path(read(tmp_path, "output_dir: out\n").output_dir) == tmp_path / "out"


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--set", "learning_rat=1"], ("--set: learning_rat is not a known key", "learning_rate")),
        (["--set", "lora_rank=0"], ("--set: lora_rank = 0", "from 1 to 512")),
        (["--set", "lora_rank=big", "--set", "seed=-1"], ("2 mistakes", "--set: lora_rank = big", "--set: seed = -1")),
        (["--set", "lora_rank"], ("--set lora_rank", "equals sign")),
        (["--set", "=3"], ("--set =3", "equals sign")),
        (["--set", "seed=1", "--set", "seed=2"], ("seed twice", "1 and 2")),
        (["--set", "sample_prompts=[a"], ("sample_prompts=[a", "starts like a list")),
        (["--reserve_memory", "lots"], ("--reserve_memory: reserve_memory = lots",)),
        (["--fp16", "--set", "mixed_precision=fp32"], ("--fp16", "--set mixed_precision")),
        (["--set", "epochs=2"], ("epochs = 2 and max_train_steps = 5",)),
        (["--set", "report_to=mlflow"], ("--set: report_to = mlflow", "tensorboard")),
        (["--set", "output_dir=$NOWHERE_AT_ALL/x"], ("--set: output_dir", "NOWHERE_AT_ALL", "not set")),
    ],
)
def test_mistakes_in_options_are_told_like_those_of_the_file(tmp_path, options, facts):
    with pytest.raises(CrucibleError) as raised:
        read(tmp_path, "max_train_steps: 5\n", *options)
    assert all(fact in str(raised.value) for fact in facts), raised.value
    assert raised.value.kind == "settings"


def test_a_variable_that_is_not_set_is_no_mistake_where_an_option_replaces_it(tmp_path):
    text = "output_dir: $NOWHERE_AT_ALL/x\nreg_data_dir: $NOR_THERE/y\n"
    with pytest.raises(CrucibleError) as raised:
        read(tmp_path, text, "--set", f"output_dir={tmp_path}")
    assert "NOR_THERE" in str(raised.value)
    assert "NOWHERE_AT_ALL" not in str(raised.value)


def test_mistakes_of_the_file_and_of_options_are_told_together(tmp_path):
    with pytest.raises(CrucibleError, match=r"line 3: lora_alpha = -1(.|\n)*--set: seed = x"):
        read(tmp_path, "lora_alpha: -1\n", "--set", "seed=x")


def test_help_lists_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    words = " ".join(said.split())
    for setting in SETTINGS.values():
        assert f"\n  {setting.name} = " in said
        assert " ".join(setting.description.split()) in words
        if setting.kind != "text":
            assert f"It is {setting.expected}." in words
    assert "lora_rank = auto: from the purpose and the number of images" in words
    assert "checkpoints_kept = 2" in words
    assert "allow_lower_resolution = false" in words
    assert "--set KEY=VALUE" in said
