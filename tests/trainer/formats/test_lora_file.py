import errno
import hashlib
import os
import re

import pytest
import safetensors.torch
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_file import (
    lora_layer,
    read_lora,
    to_state_dict,
    write_lora,
)


@pytest.fixture
def layers():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "lora_unet_mid_block_attn1_to_q": lora_layer(random(4, 8), random(6, 4), 2.0),
        "lora_unet_conv_in": lora_layer(random(4, 3, 3, 3), random(5, 4, 1, 1), 2.0),
    }


@pytest.fixture
def state_dict(layers):
    return to_state_dict(layers, torch.float32)


def test_the_three_tensors_of_each_layer(layers):
    state_dict = to_state_dict(layers, torch.float16)
    assert list(state_dict)[:3] == [
        "lora_unet_conv_in.lora_down.weight",
        "lora_unet_conv_in.lora_up.weight",
        "lora_unet_conv_in.alpha",
    ]
    assert {tensor.dtype for tensor in state_dict.values()} == {torch.float16}
    assert state_dict["lora_unet_conv_in.alpha"].item() == 2.0
    assert state_dict["lora_unet_conv_in.alpha"].shape == ()


def test_later_training_does_not_change_what_was_taken():
    down = torch.ones(8, 4).t().requires_grad_()
    state_dict = to_state_dict({"layer": lora_layer(down, torch.ones(6, 4), 1.0)}, torch.float32)
    with torch.no_grad():
        down.zero_()
    taken = state_dict["layer.lora_down.weight"]
    assert (taken == 1).all()
    assert taken.is_contiguous()
    assert not taken.requires_grad


@pytest.mark.parametrize(("value", "remedy"), [(float("nan"), "learning_rate"), (1e6, "save_precision to fp32")])
def test_weights_that_would_break_pictures_are_refused(value, remedy):
    bad = {"lora_unet_x": lora_layer(torch.full((1, 2), value), torch.ones(2, 1), 1.0)}
    with pytest.raises(CrucibleError, match=rf"lora_unet_x\.lora_down\.weight.*{remedy}"):
        to_state_dict(bad, torch.float16)


def test_what_is_written_is_read(tmp_path, state_dict):
    path = tmp_path / "new folder" / "角色.safetensors"
    metadata = {"modelspec.title": "角色", "odd": "half a pair: \udcff", "empty": ""}
    size = write_lora(path, state_dict, metadata)
    assert size == path.stat().st_size
    tensors, read = read_lora(path)
    assert tensors.keys() == state_dict.keys()
    assert all(torch.equal(tensors[key], state_dict[key]) for key in tensors)
    assert read["modelspec.title"] == "角色"
    assert read["odd"] == "half a pair: \\udcff"
    assert read["empty"] == ""
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == read
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_hash_covers_the_tensor_bytes(tmp_path, state_dict):
    path = tmp_path / "a.safetensors"
    write_lora(path, state_dict, {"modelspec.hash_sha256": "stale"})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    digest = hashlib.sha256(content[8 + length :]).hexdigest()
    metadata = read_lora(path)[1]
    assert metadata["modelspec.hash_sha256"] == "0x" + digest
    assert metadata["sshs_model_hash"] == digest


def test_same_content_gives_the_same_bytes(tmp_path, state_dict):
    metadata = {f"key{i}": str(i) for i in range(30)}
    for name, reverse in (("a", False), ("b", True)):
        ordered = [dict(sorted(part.items(), reverse=reverse)) for part in (state_dict, metadata)]
        write_lora(tmp_path / f"{name}.safetensors", *ordered)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_others_may_read_the_file(tmp_path, state_dict):
    path = tmp_path / "a.safetensors"
    write_lora(path, state_dict, {})
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("os.fsync", OSError(errno.ENOSPC, "No space left"), r"disk is full \(.* free\).*Free some"),
        ("os.replace", PermissionError(errno.EACCES, "Permission denied"), "not permitted.*Close programs"),
        ("os.fsync", OSError(errno.EIO, "Input/output error"), "Input/output error.*Check the disk"),
        ("os.replace", Killed(), None),
        ("os.fsync", KeyboardInterrupt(), None),
    ],
)
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, state_dict, monkeypatch, call, error, message):
    path = tmp_path / "a.safetensors"
    write_lora(path, state_dict, {})
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(call, fail)
    changed = {key: tensor + 1 for key, tensor in state_dict.items()}
    with pytest.raises(CrucibleError if message else type(error), match=message) as caught:
        write_lora(path, changed, {})
    if message:
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path, state_dict):
    (tmp_path / "file").touch()
    with pytest.raises(CrucibleError, match="could not be saved"):
        write_lora(tmp_path / "file" / "a.safetensors", state_dict, {})


def test_a_file_without_layers_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="at least one layer"):
        write_lora(tmp_path / "a.safetensors", {}, {})


def test_truncated_and_foreign_files_are_named(tmp_path, state_dict):
    path = tmp_path / "a.safetensors"
    write_lora(path, state_dict, {"some": "metadata"})
    whole = path.read_bytes()
    for content in (b"", whole[:4], whole[:40], whole[:-1], whole + b"x", b"no header at all", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(CrucibleError, match=re.escape(str(path)) + r".*not a complete safetensors file"):
            read_lora(path)


def test_files_that_are_not_there_or_not_safetensors(tmp_path):
    with pytest.raises(CrucibleError, match=r"no file .*missing\.safetensors"):
        read_lora(tmp_path / "missing.safetensors")
    (tmp_path / "old.pt").touch()
    with pytest.raises(CrucibleError, match=r"old\.pt is not a \.safetensors file"):
        read_lora(tmp_path / "old.pt")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CrucibleError, match="could not be read"):
        read_lora(tmp_path / "folder.safetensors")


def test_a_file_of_another_trainer_without_metadata(tmp_path, state_dict):
    path = tmp_path / "a.SAFETENSORS"
    safetensors.torch.save_file(state_dict, path)
    tensors, metadata = read_lora(path)
    assert tensors.keys() == state_dict.keys()
    assert metadata == {}


def test_an_infinite_alpha_that_does_not_count_is_no_damage(tmp_path):
    layer = "diffusion_model.blocks.0.attn.to_q"
    factors = {f"{layer}.lokr_w1": torch.ones(2, 2).half(), f"{layer}.lokr_w2": torch.ones(4, 4).half()}
    safetensors.torch.save_file(
        {**factors, f"{layer}.alpha": torch.tensor(9999999999.0).half()}, tmp_path / "whole.safetensors"
    )
    tensors, _ = read_lora(tmp_path / "whole.safetensors")
    assert tensors[f"{layer}.alpha"] == 1
    halves = {f"{layer}.lokr_w1_a": torch.ones(2, 1), f"{layer}.lokr_w1_b": torch.ones(1, 2)}
    safetensors.torch.save_file(
        {**halves, f"{layer}.alpha": torch.tensor(float("inf"))}, tmp_path / "parts.safetensors"
    )
    with pytest.raises(CrucibleError, match=r"alpha are not finite"):
        read_lora(tmp_path / "parts.safetensors")
