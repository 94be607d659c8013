"""Checks of a file's values and keys before it is used as a LoRA."""

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.foreign import all_finite
from lora_crucible.formats.lora_file import read_lora
from safetensors.torch import save_file

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz])
def test_values_that_are_not_finite_are_found(dtype):
    limits = torch.finfo(dtype)
    fine = torch.tensor([0.0, -0.0, limits.max, limits.min, limits.tiny, -1.0], dtype=dtype)
    assert all_finite(fine)
    assert all_finite(fine[:0])
    assert all_finite(fine[2])
    for bad in (float("nan"), float("inf"), float("-inf")):
        value = torch.tensor(bad).to(dtype)
        if not torch.isfinite(value.float()):  # some of these types have no infinity
            assert not all_finite(torch.cat([fine, value[None]]))
            assert not all_finite(value)
    negative_nan = torch.tensor([-1], dtype=torch.int8).repeat(fine.element_size()).view(dtype)
    assert all_finite(negative_nan) == bool(torch.isfinite(negative_nan.float()))


def test_whole_numbers_are_finite():
    assert all_finite(torch.tensor([-1, 2**40]))


ATTENTION = "motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"


@pytest.mark.parametrize(
    "key",
    [
        f"down_blocks.0.{ATTENTION}.down.weight",
        "unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
        "lora_unet_down_blocks_0_motion_modules_0_proj_in.lora_down.weight",
        "module.up_blocks.3.motion_modules.2.temporal_transformer.proj_out.lora_down.weight",
    ],
)
def test_a_motion_lora_is_called_so(tmp_path, key):
    path = tmp_path / "zoom.safetensors"
    save_file({key: torch.ones(2, 4)}, path)
    with pytest.raises(CrucibleError, match=r"is a motion LoRA.*1 key .*AnimateDiff-Evolved"):
        read_lora(path)
    save_file({key: torch.ones(2, 4), "lora_unet_mid_block_x.lora_down.weight": torch.ones(2, 4)}, path)
    assert len(read_lora(path)[0]) == 2
