"""The engine in several processes: gradients are added up, and with them what all have to know."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.distributed.processes import OutOfMemoryTogether, Processes
from lora_crucible.optim.engine import Engine
from several import run_together
from torch import nn


def engine() -> Engine:
    return Engine(torch.device("cpu"), torch.float32)


def test_alone_everything_stays_as_it_is():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = gradient = torch.tensor([1.0, 2.0])
    numbers = torch.tensor([3.0])
    assert engine().reduce([weight], numbers) is numbers
    assert weight.grad is gradient


def test_gradients_are_summed_and_weights_without_any_stay_without(tmp_path):
    """With a gradient of zero instead of none, weight decay would change a weight that no row has trained."""

    def work(processes: Processes) -> None:
        rank = processes.rank
        both, first, none = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
        both.grad = torch.full((2, 2), 1.0 + rank)
        if rank == 0:
            first.grad = torch.arange(4.0).view(2, 2)
        numbers = torch.zeros(3)
        numbers[rank] = 10.0 * (rank + 1)
        assert engine().reduce([both, first, none], numbers).tolist() == [10.0, 20.0, 0.0]
        assert torch.equal(both.grad, torch.full((2, 2), 3.0))
        assert torch.equal(first.grad, torch.arange(4.0).view(2, 2))
        assert none.grad is None

    run_together(2, work, tmp_path)


def test_out_of_memory_for_the_state_of_the_optimizer_is_known_to_all(tmp_path):
    def work(processes: Processes) -> None:
        weight = nn.Parameter(torch.ones(2))
        weight.grad = torch.ones(2)
        optimizer = torch.optim.AdamW([weight])
        if processes.rank == 1:
            step = optimizer.step

            def fails() -> None:
                optimizer.step = step
                raise MemoryError("no room")

            optimizer.step = fails
        with pytest.raises(OutOfMemoryTogether, match="process 1 of 2"):
            engine().step(optimizer)
        optimizer.state.clear()
        engine().step(optimizer)
        engine().step(optimizer)

    run_together(2, work, tmp_path)
