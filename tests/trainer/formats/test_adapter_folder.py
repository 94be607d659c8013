"""Folders in the form of PEFT."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.adapter_folder import WEIGHTS, lora_name, lora_path


def test_a_folder_stands_for_its_weights(tmp_path: Path):
    (tmp_path / WEIGHTS).touch()
    assert lora_path(tmp_path) == tmp_path / WEIGHTS
    assert lora_path(tmp_path / "other.safetensors") == tmp_path / "other.safetensors"


def test_a_folder_without_a_lora_says_what_it_has(tmp_path: Path):
    with pytest.raises(CrucibleError, match="it has no files"):
        lora_path(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(CrucibleError, match=r"it has config\.json"):
        lora_path(tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("loras/writer.safetensors", "writer"),
        ("published/writer/adapter_model.safetensors", "writer"),
        ("output/writer/adapter/adapter_model.safetensors", "writer"),
    ],
)
def test_a_lora_is_named_by_its_file_folder_or_run(path: str, name: str):
    assert lora_name(Path(path)) == name
