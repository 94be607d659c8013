"""Checks of a file's values and keys before it is used as a LoRA."""

import pytest
import torch
from lora_crucible.formats.foreign import all_finite

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
