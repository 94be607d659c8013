import os

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats import lora_model
from lora_crucible.formats.lora_model import load_lora
from safetensors.torch import save, save_file

KEY = "lora_unet_x.lora_down.weight"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({KEY: torch.ones(2, 4)}, path, {"a": "b"})
    return path


def test_a_file_is_read_once(path):
    first = load_lora(path, "a.safetensors")
    assert (first.name, first.metadata) == ("a.safetensors", {"a": "b"})
    assert load_lora(path, "a.safetensors") is first


def test_a_file_that_changed_is_read_anew(path):
    first = load_lora(path, "a.safetensors")
    path.write_bytes(save({KEY: torch.zeros(2, 4)}, {"a": "b"}))  # the same file, of the same size
    os.utime(path, ns=(1, 1))
    assert not load_lora(path, "a.safetensors")[KEY].any()
    assert first[KEY].all()


def test_few_are_kept(tmp_path, path):
    paths = [path.rename(tmp_path / "0.safetensors")]
    for number in range(1, 10):
        paths.append(tmp_path / f"{number}.safetensors")
        save_file({KEY: torch.ones(2, 4)}, paths[-1])
    first = load_lora(paths[0], "a")
    for path in paths:
        load_lora(path, "a")
    assert load_lora(paths[0], "a") is not first
    assert lora_model._load.cache_info().currsize <= 4


def test_a_file_that_is_gone(path):
    load_lora(path, "a.safetensors")
    path.unlink()
    with pytest.raises(CrucibleError, match="There is no file"):
        load_lora(path, "a.safetensors")
