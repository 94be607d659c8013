"""Files that lie about their contents: each is refused without using much memory, with an error that says why."""

from __future__ import annotations

import json
import os
import pickle
import re
import tracemalloc

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.header import MAX_HEADER, MAX_QUICK, read_header
from lora_crucible.formats.lora_file import read_lora
from safetensors.torch import save_file

DOWN, UP = "lora_unet_mid_block_attn1_to_q.lora_down.weight", "lora_unet_mid_block_attn1_to_q.lora_up.weight"


def entry(begin, end, shape=(2, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write(path, header, body=bytes(64), length=None):
    """Write a safetensors file with any header, given as an object or as its text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lora.safetensors"


def refused(path, match):
    """Check that a file is refused before its tensors are read, with a message that names it."""
    tracemalloc.start()
    try:
        with pytest.raises(CrucibleError, match=match) as caught:
            read_lora(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_the_header_of_a_sound_file(path):
    write(path, {"__metadata__": {"a": "<b>1</b>"}, DOWN: entry(0, 32), UP: entry(32, 64, (4, 2))})
    header = read_header(path)
    assert header.metadata == {"a": "<b>1</b>"}
    assert header.size == path.stat().st_size
    assert header.entries == {DOWN: ("F32", (2, 4)), UP: ("F32", (4, 2))}


def test_metadata_wherever_it_stands(path):
    tensor = json.dumps(entry(0, 64, (16,)))
    metadata = '"__metadata__" : {"a": "\\u89d2"}'
    for header in (f'{{ {metadata}, "{DOWN}": {tensor}}}', f'{{"{DOWN}": {tensor}, {metadata}}}'):
        write(path, header.encode())
        assert read_header(path).metadata == {"a": "角"}
    write(path, {"__metadata__": {"a": "b" * MAX_QUICK}, DOWN: entry(0, 64, (16,))})
    assert read_header(path).metadata == {"a": "b" * MAX_QUICK}
    write(path, {DOWN: entry(0, 64, (16,))})
    assert read_header(path).metadata == {}


def test_the_body_of_a_large_file_is_not_read_for_its_header(path):
    """The file has ten gigabytes, on disks that support sparse files."""
    size = 10 * 2**30
    write(path, {DOWN: entry(0, size, (size // 4,))}, b"")
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("no room for a sparse file")
    assert read_header(path).shapes == {DOWN: (size // 4,)}


@pytest.mark.parametrize("claimed", [2**30, MAX_HEADER + 1, 2**63, 2**64 - 1, 200])
def test_a_header_that_claims_more_than_there_is(path, claimed):
    write(path, {DOWN: entry(0, 64)}, length=claimed)
    refused(path, f"not a complete safetensors file: its header claims {claimed:,} bytes")


def test_a_header_of_more_bytes_than_anything_reads(path):
    write(path, b"{", b"", length=MAX_HEADER + 1)
    os.truncate(path, MAX_HEADER + 100)
    refused(path, "its header claims 100,000,001 bytes")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({DOWN: entry(-32, 0)}, id="negative offsets"),
        pytest.param({DOWN: entry(32, 0)}, id="ends before it begins"),
        pytest.param({DOWN: entry(0, 2**62)}, id="ends far beyond the file"),
        pytest.param({DOWN: entry(0, 64, (2**62, 2**62))}, id="shape that overflows"),
        pytest.param({DOWN: entry(0, 64, (-2, -8))}, id="negative shape"),
        pytest.param({DOWN: entry(0, 32), UP: entry(0, 32)}, id="the same bytes twice"),
        pytest.param({DOWN: entry(0, 40, (10,)), UP: entry(32, 64)}, id="overlap"),
        pytest.param({DOWN: entry(0, 28, (7,)), UP: entry(32, 64)}, id="gap"),
        pytest.param({DOWN: entry(0, 32)}, id="bytes without a tensor"),
        pytest.param({DOWN: entry(0, 64)}, id="shape that does not match the bytes"),
        pytest.param({DOWN: entry(0, 64, (16,), "F99")}, id="unknown type"),
        pytest.param({DOWN: entry(0, 64, (16,)), "__metadata__": {"a": {"b": "c"}}}, id="metadata that is not text"),
        pytest.param({DOWN: entry(0, 64, (16,)), "__metadata__": ["a"]}, id="metadata that is a list"),
        pytest.param({"__metadata__": {"a": 1}, DOWN: entry(0, 64, (16,))}, id="metadata first, and not text"),
        pytest.param({"__metadata__": {}, "__metadata__ ": {}}, id="an entry that is not a tensor"),
        pytest.param({DOWN: "x"}, id="not an entry"),
        pytest.param(b'{"' + DOWN.encode() + b'":', id="cut off"),
        pytest.param(b'{"\xff":1}', id="not UTF-8"),
        pytest.param(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", id="deeply nested"),
        pytest.param(b'{"__metadata__":{"a":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}", id="deep metadata"),
    ],
)
def test_headers_that_lie(path, header):
    write(path, header)
    refused(path, "not a complete safetensors file")


def test_the_same_key_twice(path):
    """Programs do not agree on which of them counts."""
    one, other = (json.dumps(entry(*span)) for span in ((0, 32), (32, 64)))
    write(path, f'{{"{DOWN}":{one},"{DOWN}":{other}}}'.encode())
    refused(path, "not a complete safetensors file")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04" + bytes(100), "a PyTorch pickle"),
        (pickle.dumps({"a": 1}), "a Python pickle"),
        (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    ],
)
def test_other_kinds_of_files_under_this_ending(path, content, kind):
    path.write_bytes(content)
    refused(path, rf"is not a safetensors file but {kind}.*Download the LoRA's")


def test_a_pickle_is_not_run(path, tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Harmful(), path)
    refused(path, "is not a safetensors file but a PyTorch pickle.*can run code")
    path.write_bytes(pickle.dumps(Harmful()))
    refused(path, "Python pickle")
    assert not (tmp_path / "ran").exists()


def test_a_legacy_pickle_whose_first_bytes_are_a_headers_length(path):
    """Pickle protocol 2 begins with the bytes 80 02, which can also be the length (640) of a valid header."""
    text = json.dumps({DOWN: entry(0, 64, (16,))}).encode()
    write(path, text + b" " * (640 - len(text)))
    assert path.read_bytes().startswith(b"\x80\x02")
    assert read_header(path).shapes == {DOWN: (16,)}


def test_what_is_no_file(tmp_path):
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    refused(folder, "could not be read: it is a folder")
    loop = tmp_path / "loop.safetensors"
    try:
        loop.symlink_to(loop)
        pipe = tmp_path / "pipe.safetensors"
        os.mkfifo(pipe)
    except (AttributeError, OSError):
        pytest.skip("no symbolic links or pipes on this system")
    refused(loop, "could not be read")
    refused(pipe, "could not be read: it is not a regular file")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"], "a checkpoint"),
        (["double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.img_attn.qkv.weight"], "a model without"),
        (["emb_params"], "an embedding"),
        (["clip_g", "clip_l"], "an embedding"),
        (["lllite_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_k.down.0.weight"], "a ControlNet-LLLite"),
        (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "a motion module"),
        (["control_model.input_hint_block.0.weight"], "a ControlNet"),
        (["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "an IP-Adapter"),
        (["encoder.conv_in.weight"], "a VAE"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
    ],
)
def test_files_that_hold_something_else_are_called_by_its_name(path, keys, kind):
    save_file({key: torch.ones(2, 2) for key in keys}, path)
    refused(path, rf"holds no LoRA but {re.escape(kind)}.*{re.escape(keys[0])}.*or choose a LoRA")


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("base_model.model.down_blocks.0.attn.to_k.ia3_l", "(IA)³"),
        ("lora_unet_down_blocks_0_attn_to_k.on_input", "(IA)³"),
        ("base_model.model.a.vera_lambda_b", "VeRA"),
        ("base_model.model.a.hra_u", "HRA"),
        ("base_model.model.a.boft_R", "BOFT"),
        ("base_model.model.a.oft_R.weight", "OFT"),
        ("oft_unet_single_blocks_0_linear1.oft_blocks.0", "OFT for Flux"),
        ("base_model.model.a.lora_E", "AdaLoRA"),
        ("base_model.model.a.default_lora_latent_mapping.weight", "LoRA-XS"),
        ("base_model.model.a.fourierft_spectrum", "FourierFT"),
    ],
)
@pytest.mark.parametrize("with_lora", [False, True])
def test_methods_that_no_loader_reads_are_called_by_their_name(path, key, method, with_lora):
    lora = {DOWN: torch.ones(2, 4), UP: torch.ones(4, 2)} if with_lora and method in ("AdaLoRA", "OFT") else {}
    save_file({key: torch.ones(2, 2)} | lora, path)
    refused(path, rf"is no LoRA but {re.escape(method)}.*{re.escape(key)}")


@pytest.mark.parametrize("keys", [["decoder.layers.0.alpha"], []])
def test_files_that_hold_no_lora(path, keys):
    save_file({key: torch.ones(2, 2) for key in keys}, path)
    refused(path, f"holds no LoRA: none of its {len(keys)} keys .*Choose a LoRA")


def test_an_alpha_that_does_not_count_may_be_infinite(path):
    """ai-toolkit writes 9999999999 for a LoKr of two whole matrices, which is infinite in float16."""
    name = "lora_unet_mid_block_attn1_to_q"
    infinite = torch.tensor(9999999999).half()
    save_file(
        {f"{name}.lokr_w1": torch.ones(2, 2), f"{name}.lokr_w2": torch.ones(2, 2), f"{name}.alpha": infinite}, path
    )
    assert read_lora(path)[0][f"{name}.alpha"] == 1
    save_file({DOWN: torch.ones(2, 4), UP: torch.ones(4, 2), f"{name}.alpha": infinite}, path)
    refused(path, r"values of lora_unet_mid_block_attn1_to_q.alpha are not finite")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float32, float("nan")),
        (torch.float32, float("inf")),
        (torch.float16, float("-inf")),
        (torch.bfloat16, float("nan")),
        (torch.float8_e4m3fn, float("nan")),
    ],
)
def test_weights_that_are_no_numbers(path, dtype, value):
    down = torch.ones(2, 4)
    down[1, 2] = value
    save_file({DOWN: down.to(dtype), UP: torch.ones(4, 2).to(dtype)}, path)
    said = rf"is broken: 1 of the 8 values of {DOWN} are not finite \(NaN or infinite\).*earlier checkpoint"
    with pytest.raises(CrucibleError, match=said):
        read_lora(path)
