from __future__ import annotations

import weakref

import pytest
import torch
from lora_crucible.hardware.out_of_memory import (
    Attempt,
    first_that_fits,
    forget_tensors,
    is_out_of_memory,
    twice,
)


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


def fails(error: BaseException):
    def action():
        raise error

    return action


def test_the_first_attempt_that_fits_counts_and_the_rest_are_not_made():
    freed = []
    attempts = [
        Attempt("whole", fails(MemoryError())),
        Attempt("in halves", fails(torch.cuda.OutOfMemoryError("CUDA out of memory"))),
        Attempt("in quarters", lambda: "done"),
        Attempt("never", fails(AssertionError())),
    ]
    outcome = first_that_fits(attempts, free=lambda: freed.append(None))
    assert outcome.error is None
    assert outcome.required() == outcome.result == "done"
    assert outcome.tried == ("whole", "in halves", "in quarters")
    assert len(freed) == 2


def test_the_last_error_tells_that_nothing_fits():
    last = RuntimeError("std::bad_alloc")
    outcome = first_that_fits([Attempt("whole", fails(MemoryError())), Attempt("in halves", fails(last))])
    assert outcome.error is last
    assert outcome.result is None
    assert outcome.tried == ("whole", "in halves")
    with pytest.raises(RuntimeError) as error:
        outcome.required()
    assert error.value is last


def test_a_result_of_none_fits():
    outcome = first_that_fits([Attempt("whole", lambda: None)])
    assert outcome.error is None
    assert outcome.required() is None


def test_other_errors_are_passed_on_at_once():
    freed = []
    with pytest.raises(ValueError, match="something else"):
        first_that_fits(twice(fails(ValueError("something else"))), free=lambda: freed.append(None))
    assert not freed


def test_what_an_attempt_held_is_gone_before_memory_is_freed():
    held, freed = [], []

    def run_out():
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise MemoryError

    first_that_fits(twice(run_out), free=lambda: freed.append([one() for one in held]))
    assert freed == [[None], [None, None]]


def test_attempts_may_be_decided_on_as_they_are_needed_and_end_in_an_error():
    def attempts():
        yield Attempt("whole", fails(MemoryError()))
        raise LookupError("nothing smaller is left")

    with pytest.raises(LookupError, match="nothing smaller") as error:
        first_that_fits(attempts())
    assert isinstance(error.value.__cause__, MemoryError)  # without which nobody could tell what ran out
