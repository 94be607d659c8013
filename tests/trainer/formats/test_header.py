"""Headers of many files, read without their tensors."""

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats import identify as module
from lora_crucible.formats.header import read_header
from lora_crucible.formats.identify import identify
from safetensors.torch import save_file


def test_files_with_the_same_layers_are_identified_once(tmp_path, monkeypatch):
    """Lists of thousands of files hold many of the same trainer, base model and rank."""
    one, other, another, broken = (tmp_path / f"{name}.safetensors" for name in "abcd")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{layer}.lora_down.weight": torch.ones(4, 768), f"{layer}.lora_up.weight": torch.ones(320, 4)}
    save_file(tensors, one, {"a": "b"})
    save_file({key: 2 * tensor for key, tensor in tensors.items()}, other, {"c": "\u00e4" * 100})
    save_file({key: tensor.half() for key, tensor in tensors.items()}, another)
    broken.write_bytes(one.read_bytes()[:-1])
    digests = [read_header(path).shapes.digest for path in (one, other, another, broken)]
    assert len(set(digests)) == 3
    assert digests[0] == digests[1]
    monkeypatch.setattr(module, "_known", {})
    for path in (one, other, another):
        header = read_header(path)
        assert identify(header.shapes, header.metadata).id == "sd15"
    assert len(module._known) == 2
    with pytest.raises(CrucibleError, match="not a complete safetensors file"):
        identify(read_header(broken).shapes, {})
