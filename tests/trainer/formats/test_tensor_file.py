import json

import pytest
import safetensors.torch
import torch
from lora_crucible.formats.tensor_file import data_parts, file_parts

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 100, (3, 5), generator=generator)
    made = {str(dtype): values.to(dtype) for dtype in DTYPES}
    return made | {"scalar": torch.tensor(2.5), "nothing": torch.zeros(0, 4), "ünï": torch.ones(1)}


def written(tensors, metadata=None):
    return b"".join(file_parts(tensors, data_parts(tensors), metadata))


def entries(content):
    """Return the dtype, shape and bytes of each tensor in a file."""
    length = int.from_bytes(content[:8], "little")
    data = content[8 + length :]
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in json.loads(content[8 : 8 + length]).items()
    }


def test_every_dtype_is_written_as_the_library_writes_it(tensors):
    assert entries(written(tensors)) == entries(safetensors.torch.save(tensors))


def test_the_library_reads_what_was_written(tensors):
    loaded = safetensors.torch.load(written(tensors, {"who": "<b>ü</b>"}))
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert loaded[name].view(torch.uint8).equal(tensor.view(torch.uint8)) if tensor.ndim else loaded[name] == tensor


def test_same_bytes_whatever_the_order(tensors):
    metadata = {str(number): "text" for number in range(20)}
    other = dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    assert written(tensors, metadata) == written(*other)


def test_a_tensor_that_is_not_contiguous():
    tensor = torch.arange(6.0).reshape(2, 3).t()
    assert safetensors.torch.load(written({"turned": tensor}))["turned"].equal(tensor)
