import json

import pytest
import torch
from lora_crucible.files.tensor_tree import on_cpu, packed, unpacked

NESTED = {
    "tensors": [torch.tensor([1.5, -2.0]), {"half": torch.ones(2, dtype=torch.bfloat16)}],
    "tuple": (1, 2.5, "text", None, True),
    0: {"step": torch.tensor(3.0)},
    "empty": {},
    "awkward": [float("inf"), 0.1 + 0.2, 2**70],
}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_what_was_packed_is_what_is_unpacked():
    tensors = {}
    structure = json.loads(json.dumps(packed(NESTED, tensors)))
    assert same(unpacked(structure, tensors), NESTED)


def test_copies_do_not_change_with_the_original():
    weight = torch.zeros(2)
    tensors = {}
    packed([weight], tensors)
    copy = on_cpu([{"weight": weight}])
    weight += 1
    assert torch.equal(tensors["0"], torch.zeros(2))
    assert torch.equal(copy[0]["weight"], torch.zeros(2))


def test_what_no_file_can_hold_is_refused():
    with pytest.raises(TypeError, match="object"):
        packed([object()], {})
