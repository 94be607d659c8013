"""The task of a config file is the one that it names, or follows from its model and data; mismatches are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_crucible.cli.task import require_task, with_task
from lora_crucible.config.yaml_file import checked, read_settings
from lora_crucible.errors import CrucibleError
from PIL import Image


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    folder = tmp_path / "qwen"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
    return folder


@pytest.fixture
def image_model(tmp_path: Path) -> Path:
    folder = tmp_path / "sd15"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "hello"}\n')
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a caption")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a caption"}\n')
    return folder


def told(text: str) -> tuple[str, str]:
    written, guess = with_task(read_settings(text, "a test"))
    return checked(written).task_type, guess


def test_a_language_model_leaves_no_doubt(language_model: Path) -> None:
    task, guess = told(f"model_name_or_path: {language_model}\ncutoff_len: 512\n")
    assert task == "text-generation"
    assert guess.startswith("task_type is not set. It is taken as text-generation, because base_model = ")
    assert "Qwen2ForCausalLM" in guess


def test_a_file_of_rows_leaves_no_doubt(rows: Path) -> None:
    task, guess = told(f"base_model: some/model\ntrain_data_dir: {rows}\n")
    assert (task, "rows.jsonl is a file" in guess) == ("text-generation", True)


def test_a_folder_of_rows_leaves_no_doubt_unless_it_has_images(rows: Path, pictures: Path) -> None:
    task, guess = told(f"base_model: some/model\ntrain_data_dir: {rows.parent}\n")
    assert (task, guess) == ("text-to-image", ""), "the pictures are in a folder inside"
    rows_alone = rows.parent / "rows"
    rows_alone.mkdir()
    rows.rename(rows_alone / rows.name)
    task, guess = told(f"base_model: some/model\ntrain_data_dir: {rows_alone}\n")
    assert (task, "is a folder of texts without any image" in guess) == ("text-generation", True)


@pytest.mark.parametrize("name", ["llama-2-7b-chat.ggmlv3.q4_0.bin", "qwen.gguf"])
def test_files_of_language_models_are_named_as_such(name: str) -> None:
    """What can be used instead of such files is said when they are opened as language models."""
    assert told(f"base_model: {name}\n")[0] == "text-generation"


def test_what_is_named_is_not_guessed(language_model: Path) -> None:
    assert told(f"base_model: {language_model}\ntask_type: text-to-image\n") == ("text-to-image", "")


def test_images_stay_the_default(image_model: Path, pictures: Path) -> None:
    assert told(f"base_model: {image_model}\ntrain_data_dir: {pictures}\n") == ("text-to-image", "")
    assert told("base_model: demo\ntrain_data_dir: demo\n") == ("text-to-image", "")
    assert told("lora_rank: 4\n") == ("text-to-image", "")


def test_damaged_configs_of_models_say_nothing(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"architectures": null}', '{"architectures": ["BertModel"]}'):
        (tmp_path / "config.json").write_text(content)
        assert told(f"base_model: {tmp_path}\n") == ("text-to-image", "")


def test_matching_model_and_data_are_accepted(
    language_model: Path, image_model: Path, rows: Path, pictures: Path
) -> None:
    require_task("text-generation", str(language_model), str(rows))
    require_task("text-generation", str(language_model), str(rows.parent))
    require_task("text-generation", "Qwen/Qwen2.5-7B-Instruct", str(rows))
    require_task("text-to-image", str(image_model), str(pictures))
    require_task("text-to-image", "demo", "demo")


def test_the_other_kind_of_model_or_data_is_refused(
    language_model: Path, image_model: Path, rows: Path, pictures: Path
) -> None:
    with pytest.raises(CrucibleError, match=r"is an image model in diffusers' format \(it has a model_index.json\)"):
        require_task("text-generation", str(image_model), str(rows))
    with pytest.raises(CrucibleError, match="is a folder of images, and its text files are their captions"):
        require_task("text-generation", str(language_model), str(pictures))
    with pytest.raises(CrucibleError, match=r"is a language model \(Qwen2ForCausalLM\), so no image could be trained"):
        require_task("text-to-image", str(language_model), str(pictures))
    with pytest.raises(CrucibleError, match="is a file, which can only hold texts"):
        require_task("text-to-image", str(image_model), str(rows))


def test_a_folder_of_texts_with_a_picture_is_no_folder_of_images(pictures: Path, language_model: Path) -> None:
    (pictures / "questions.jsonl").write_text('{"text": "hello"}\n')
    require_task("text-generation", str(language_model), str(pictures))
