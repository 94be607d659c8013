"""Tests of files that appear complete or not at all; failures of writing are tested with LoRA files."""

import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.files.atomic import delete_unfinished, require_writable, write_whole
from lora_crucible.messages.wording import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (9_300_000, "9.3 MB"),
        (999_960_000, "1.0 GB"),
        (2_500_000_000_000, "2500.0 GB"),
    ],
)
def test_sizes_for_people(size, text):
    assert size_text(size) == text


def test_what_killed_processes_left_is_deleted_by_name(tmp_path, monkeypatch):
    name = "a[1].safetensors"
    with monkeypatch.context() as killed:
        killed.setattr("os.replace", lambda *_: None)
        killed.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        for other in (name, "a.safetensors"):
            write_whole(tmp_path / other, b"half", what="The LoRA")
    write_whole(tmp_path / name, b"whole", what="The LoRA")
    assert len(list(tmp_path.iterdir())) == 3
    delete_unfinished(tmp_path, name)
    assert len(list(tmp_path.iterdir())) == 2
    delete_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_can_be_written_to_is_made_and_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b", "The LoRA")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CrucibleError, match=r"The LoRA could not be saved to .*file: there is a file where a folder"):
        require_writable(tmp_path / "file", "The LoRA")
