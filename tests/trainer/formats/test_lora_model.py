import os

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats import lora_file, lora_model
from lora_crucible.formats.lora_info import lora_info
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
    new = path.with_name("new")
    new.write_bytes(save({KEY: torch.zeros(2, 4)}, {"a": "b"}))  # of the same size
    os.utime(new, ns=(path.stat().st_mtime_ns,) * 2)
    new.replace(path)
    assert not load_lora(path, "a.safetensors")[KEY].any()
    assert first[KEY].all()


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, in order."""
    found = []
    read = lora_model.read_lora
    monkeypatch.setattr(lora_model, "read_lora", lambda path: found.append(path) or read(path))
    return found


def test_a_stack_of_many_is_read_once(path, reads):
    paths = [path.with_name(f"{number}.safetensors") for number in range(30)]
    for one in paths:
        save_file({KEY: torch.ones(2, 4)}, one)
    for _ in range(3):
        for one in paths:
            load_lora(one, one.name)
    assert reads == paths


def test_the_size_of_what_is_kept_is_bounded(path, reads, monkeypatch):
    monkeypatch.setattr(lora_model, "KEPT_BYTES", 2 * path.stat().st_size)
    monkeypatch.setattr(lora_model, "_kept", lora_model._Kept())
    first, second, third = (path.with_name(f"{number}.safetensors") for number in range(3))
    for one in (first, second, third):
        one.write_bytes(path.read_bytes())
    for one in (first, second, first, third, first, second):
        load_lora(one, one.name)
    assert reads == [first, second, third, second]


def test_a_change_in_place_is_seen(path):
    load_lora(path, "a.safetensors")
    path.write_bytes(save({KEY: torch.zeros(2, 4)}, {"a": "b"}))
    os.utime(path, ns=(1, 1))
    assert not load_lora(path, "a.safetensors")[KEY].any()


def test_on_windows_files_are_read_rather_than_mapped(path, monkeypatch):
    monkeypatch.setattr(lora_file, "MAPPED", False)
    monkeypatch.setattr(lora_file, "safe_open", None)
    assert load_lora(path, "a.safetensors")[KEY].all()


def test_a_file_that_is_gone(path):
    load_lora(path, "a.safetensors")
    path.unlink()
    with pytest.raises(CrucibleError, match="There is no file"):
        load_lora(path, "a.safetensors")


def test_the_short_ending_of_safetensors_files(path):
    short = path.rename(path.with_suffix(".SFT"))
    lora = load_lora(short, "people/a.SFT")
    assert lora[KEY].all()
    assert lora_info(lora, lora.name, lora.metadata, short).prompt_tag.startswith("<lora:a:")
