from __future__ import annotations

import weakref

import pytest
import torch
from lora_crucible.hardware import device_memory
from lora_crucible.hardware.device_memory import (
    PeakMeter,
    available_memory,
    forget_tensors,
    is_out_of_memory,
    out_of_memory_freed,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    ],
)
def test_lack_of_memory_is_known_by_all_its_names(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyboardInterrupt()],
)
def test_other_errors_are_not_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_what_a_real_allocation_raises_is_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    assert is_out_of_memory(error.value)


def test_an_error_keeps_no_tensor_alive_that_is_forgotten():
    seen = []

    def fail():
        large = torch.zeros(1000)
        seen.append(weakref.ref(large))
        raise RuntimeError("out of memory")

    def wrap():
        try:
            fail()
        except RuntimeError as error:
            raise ValueError from error

    try:
        wrap()
    except ValueError as error:
        assert seen[0]() is not None
        forget_tensors(error)
        assert seen[0]() is None


def test_the_peak_is_seen_though_it_is_over():
    with PeakMeter(CPU) as meter:
        before = meter.now
        torch.ones(75_000_000).sum()  # 300 MB
        assert meter.peak - before == pytest.approx(3e8, rel=0.3)
        meter.reset()
        assert meter.peak - before < 1e8


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
    assert available_memory(CPU) > 2e8
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 300000\n")
    monkeypatch.setattr(device_memory, "CONTAINER", tmp_path)
    assert available_memory(CPU) - PeakMeter(CPU).now == pytest.approx(400_000, abs=5e6)
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(CPU) > 2e8


def test_what_a_call_held_that_ran_out_is_gone_before_memory_is_freed():
    held = []

    def ran_out() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise MemoryError

    freed = []
    with out_of_memory_freed(free=lambda: freed.append(held[0]() is None)):
        ran_out()
    assert freed == [True]
    with pytest.raises(ValueError, match="something else"), out_of_memory_freed(free=lambda: freed.append(None)):
        raise ValueError("something else")
    with out_of_memory_freed(free=lambda: freed.append(None)):
        pass
    assert freed == [True]
