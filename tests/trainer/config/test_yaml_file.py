"""Config files are read as people write them, and mistakes are named with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.config import TrainingConfig
from lora_crucible.config.yaml_file import read_config
from lora_crucible.errors import CrucibleError


def config_of(folder: Path, text: str | bytes) -> TrainingConfig:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path)


def error_of(folder: Path, text: str | bytes) -> str:
    with pytest.raises(CrucibleError) as error:
        config_of(folder, text)
    return str(error.value)


def test_a_usual_file(tmp_path: Path) -> None:
    text = (
        "# my run\nbase_model: demo\ntrain_data_dir: 'C:\\my images'  # quoted\n"
        "lora_rank: 8\nlearning_rate: 2e-4\n"
        "mixed_precision: no\nlora_alpha:\nresolution: auto\ngradient_checkpointing: true\n"
        "sample_prompts:\n  - a cat\n  - a dog\n"
    )
    expected = TrainingConfig(
        base_model="demo",
        train_data_dir="C:\\my images",
        output_dir=str(tmp_path / "output"),
        lora_rank=8,
        learning_rate=2e-4,
        mixed_precision="fp32",
        gradient_checkpointing=True,
        sample_prompts="a cat\na dog",
    )
    assert config_of(tmp_path, text) == expected


@pytest.mark.parametrize("word", ["no", "007", "1.10", "2024-01-01", "off"])
def test_words_stay_as_they_are_written(tmp_path: Path, word: str) -> None:
    assert config_of(tmp_path, f"trigger_word: {word}\nseed: 0\n").trigger_word == word


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_any_encoding_and_line_end(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = line_end.join(["trigger_word: 水墨画风", "lora_rank: 4", ""])
    config = config_of(tmp_path, text.encode(encoding))
    assert (config.trigger_word, config.lora_rank) == ("水墨画风", 4)


def test_all_mistakes_are_shown_with_their_lines(tmp_path: Path) -> None:
    text = (
        "lora_rnk: 8\nbatch_size: 100\n\n# comment\nlearning_rate: fast\nepochs: 3\n"
        "max_steps: 7\nseed: 1\nseed: 2\nnetwork: {dim: 4}\n"
    )
    error = error_of(tmp_path, text)
    assert "6 mistakes" in error
    assert str(tmp_path / "config.yaml") in error
    shown = [line.strip().split(",")[0] for line in error.splitlines() if line.startswith("  ")]
    assert [line[: line.index(":")] for line in shown] == [f"line {n}" for n in (1, 2, 5, 6, 8, 10)]
    assert "did you mean lora_rank?" in shown[0]
    assert "seed is in line 8 and again in line 9" in shown[4]


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "my_config.yaml").write_text("seed: 1\n")
    with pytest.raises(CrucibleError, match=r"my_confg\.yaml does not exist.*A similar path exists: .*my_config\.yaml"):
        read_config(tmp_path / "my_confg.yaml")


def test_a_folder_names_its_config_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    with pytest.raises(CrucibleError, match=r"is a folder\. The folder contains a\.yaml"):
        read_config(tmp_path)


def test_all_on_one_line_shows_how_to_part_it(tmp_path: Path) -> None:
    error = error_of(tmp_path, "base_model: demo lora_rank: 8, learning_rate: 2e-4\n")
    assert "on one line" in error
    assert error.endswith("\n  base_model: demo\n  lora_rank: 8\n  learning_rate: 2e-4")


def test_braces_on_one_line_are_yaml(tmp_path: Path) -> None:
    assert config_of(tmp_path, "{lora_rank: 8, seed: 3}").lora_rank == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- demo\n- images\n", "not a list of settings"),
        ("lora_rank:8\n", "no space after the colon in line 1: lora_rank:8"),
        ("seed: 1\nlora_rank:8\nepochs: 2\n", "no space after the colon in line 2"),
        (
            "seed: 1\n\nlora_rank\uff1a8\n\n",
            "in line 3:\n  lora_rank\uff1a8\nThe setting cannot be read (the colon in line 3 is a full",
        ),
        ("seed\uff1a1\nlora_rank\uff1a8\n", "the colon in line 1 is a full-width one"),
        ("seed: 1\ntrigger_word: 'open\n\n", "in line 2:\n  trigger_word: 'open"),
        ("seed: 1\n  lora_rank: 8\n", "in line 2:\n  lora_rank: 8\n"),
        ("seed: 1\n\tlora_rank: 8\n", "starts with a tab"),
        ('train_data_dir: "C:\\Users\\me"\n', "double quotes a backslash"),
        ('trigger_word: "cat\nseed: 1\n', "quotes must be closed"),
        (b"\xff\xfe\xfd", "save it as UTF-8"),
        (b"\x81\x81 \x81", "save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_config_says_what_to_change(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in error_of(tmp_path, text)


def test_deeply_nested_aliases_do_not_hang(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    assert "60 mistakes" in error_of(tmp_path, "\n".join(lines))


def test_a_percent_sign_in_front_needs_quotes(tmp_path: Path) -> None:
    assert "A value that starts with %, @ or ` must be in quotes" in error_of(
        tmp_path, "seed: 1\nmetadata_path: %A%/b\n"
    )
