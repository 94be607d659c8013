"""Paths in config files count from the file, and `~` and environment variables are replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.config import SETTINGS
from lora_crucible.config.yaml_file import checked, read_written
from lora_crucible.errors import CrucibleError

PATHS = [name for name, setting in SETTINGS.items() if setting.path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is not the folder of the config file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def read(folder: Path, text: str):
    folder.mkdir(exist_ok=True)
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    written = read_written(folder / "my.yaml")
    return checked(written), written.notes


def test_every_setting_that_names_a_path_is_known_as_one() -> None:
    assert {"base_model", "train_data_dir", "metadata_path", "output_dir", "reg_data_dir"} <= set(PATHS)
    assert {"continue_from", "resume_from_checkpoint"} <= set(PATHS)
    unsaid = [name for name in SETTINGS if name.endswith(("_dir", "_path", "_from", "_file")) and name not in PATHS]
    assert not unsaid, "these look like paths; say so in their settings"


@pytest.mark.parametrize("name", PATHS)
def test_relative_paths_count_from_the_config_file_and_that_is_said(tmp_path: Path, here: Path, name: str) -> None:
    config, (note,) = read(tmp_path / "cfg", f"{name}: ./things/one.safetensors\n")
    assert getattr(config, name) == str(tmp_path / "cfg" / "things" / "one.safetensors")
    assert f"count from the folder of the config file, {tmp_path / 'cfg'}: " in note
    assert f"{name} = {tmp_path / 'cfg' / 'things' / 'one.safetensors'}" in note


def test_each_of_several_paths_counts_from_the_config_file(tmp_path: Path, here: Path) -> None:
    config, (note,) = read(tmp_path / "cfg", "text_encoders: [clip_l.safetensors, /models/t5.safetensors]\n")
    assert config.text_encoder_files == (str(tmp_path / "cfg" / "clip_l.safetensors"), "/models/t5.safetensors")
    assert f"text_encoders = {tmp_path / 'cfg' / 'clip_l.safetensors'}, /models/t5.safetensors" in note


def test_the_output_folder_is_beside_the_config_file_too(tmp_path: Path, here: Path) -> None:
    config, notes = read(tmp_path / "cfg", "base_model: demo\ntrain_data_dir: demo\n")
    assert config.output_dir == str(tmp_path / "cfg" / "output")
    assert (config.base_model, config.train_data_dir, notes) == ("demo", "demo", ())
    _, (note,) = read(tmp_path / "cfg", "train_data_dir: cats\n")
    assert f"output_dir = {tmp_path / 'cfg' / 'output'}" in note


def test_a_path_that_only_exists_where_the_user_is_gets_named(tmp_path: Path, here: Path) -> None:
    (here / "cats").mkdir()
    config, (note,) = read(tmp_path / "cfg", "train_data_dir: cats\n")
    assert config.train_data_dir == str(tmp_path / "cfg" / "cats")
    assert f"The folder that you are in has {here / 'cats'}, which is not used" in note


@pytest.mark.parametrize("written", ["$DATA/cats", "${DATA}/cats", "%DATA%/cats", "~/cats"])
def test_home_and_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "data"))
    config, notes = read(tmp_path / "cfg", f"train_data_dir: \"{written}\"\nreg_data_dir: '{written}'\n")
    assert Path(str(config.train_data_dir)) == Path(str(config.reg_data_dir)) == tmp_path / "data" / "cats"
    assert notes == ()


def test_a_variable_may_hold_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "cats")
    config, (note,) = read(tmp_path / "cfg", "train_data_dir: data/$SET\n")
    assert config.train_data_dir == str(tmp_path / "cfg" / "data" / "cats")
    assert str(config.train_data_dir) in note


def test_unset_variables_are_mistakes_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_THING", raising=False)
    monkeypatch.delenv("NOR_THIS", raising=False)
    with pytest.raises(CrucibleError) as error:
        read(tmp_path, "lora_rank: 0\ntrain_data_dir: ${NO_SUCH_THING}/%NOR_THIS%/cats\nbase_model: demo\n")
    assert "2 mistakes" in str(error.value)
    assert (
        "line 2: train_data_dir = ${NO_SUCH_THING}/%NOR_THIS%/cats, but the environment variables NO_SUCH_THING and "
        "NOR_THIS are not set; set them, or write the path out" in str(error.value)
    )


def test_a_path_that_is_too_long_for_a_file_is_a_path_like_any_other(tmp_path: Path, here: Path) -> None:
    config, _ = read(tmp_path, f"train_data_dir: {'x' * 300}\n")
    assert config.train_data_dir == str(tmp_path / ("x" * 300))


def test_a_file_with_a_dollar_in_its_name_is_within_reach(tmp_path: Path) -> None:
    (tmp_path / "cost$cats").mkdir()
    config, _ = read(tmp_path, "train_data_dir: cost$cats\n")
    assert config.train_data_dir == str(tmp_path / "cost$cats")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("runwayml/stable-diffusion-v1-5", True),
        ("models/v1-5.safetensors", False),
        ("./owner/name", False),
        ("a/b/c", False),
        ("model", False),
    ],
)
def test_names_on_the_hub_are_no_paths(tmp_path: Path, written: str, kept: bool) -> None:
    config, _ = read(tmp_path, f"base_model: {written}\n")
    assert config.base_model == (written if kept else str(tmp_path / written))


def test_a_folder_called_like_a_name_on_the_hub_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    config, _ = read(tmp_path, "base_model: owner/name\n")
    assert config.base_model == str(tmp_path / "owner" / "name")


def test_only_the_base_model_may_be_a_name_on_the_hub(tmp_path: Path) -> None:
    config, _ = read(tmp_path, "train_data_dir: owner/name\n")
    assert config.train_data_dir == str(tmp_path / "owner" / "name")


def test_paths_of_windows_stay_as_they_are(tmp_path: Path) -> None:
    config, notes = read(tmp_path, "train_data_dir: 'D:\\cats'\n")
    assert (config.train_data_dir, notes) == ("D:\\cats", ())
