"""The engine of a run: its device, precision, backward pass and optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.processes import current
from ..hardware.out_of_memory import is_out_of_memory

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtypes of the precisions that settings can name."""


class Engine:
    """Device, precision, backward and optimizer step of a run.

    With several processes, each has the whole base model and the same adapters. It computes the gradients of its share
    of the rows of a step, `reduce` adds them up, and all take the same step.

    Args:
        device: the device of the adapters and the activations.
        compute: the dtype of activations and matrix products; the adapters themselves are always float32.

    Attributes:
        processes: the processes of the run.
    """

    def __init__(self, device: torch.device, compute: torch.dtype) -> None:
        self.device = device
        self.compute = compute
        self.processes = current()
        # float16 gradients underflow without a loss scale.
        self._scaler = torch.amp.GradScaler(device.type, enabled=compute is torch.float16)
        self._is_unscaled = False

    @property
    def precision(self) -> str:
        """The name that settings have for `compute`."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.compute)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute matrix products in `compute` inside the context, whatever the dtype of the weights."""
        return torch.autocast(self.device.type, self.compute, enabled=self.compute is not torch.float32)

    @property
    def loss_scale(self) -> float:
        """The factor that keeps small float16 gradients from underflowing; 1.0 otherwise. Waits for the device."""
        return float(self._scaler.get_scale())

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss, multiplied by the loss scale, to those of the step."""
        self._scaler.scale(loss).backward()

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.processes.is_main

    def reduce(self, parameters: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:
        """Add up the gradients of a step, and some numbers with them, over all processes; a single one has all of them.

        It is the only time in a step that the processes wait for each other. A parameter gets a gradient in all of them
        if it has one in any. Waits for the device if there are several.

        Args:
            parameters: the trained parameters.
            numbers: float32 numbers (count,) of which every process has as many.

        Returns:
            The sums of the numbers.
        """
        if self.processes.count == 1:
            return numbers
        given = [parameter.grad is not None for parameter in parameters]
        parts = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters]
        used = torch.tensor(given, dtype=torch.float32, device=self.device)
        # One buffer, because the time of many small sums would be that of their beginnings.
        whole = torch.cat([*(part.flatten() for part in parts), numbers.to(self.device), used])
        self.processes.sum(whole)
        *sums, numbers, used = whole.split([*(part.numel() for part in parts), len(numbers), len(used)])
        for parameter, part, total, is_used in zip(parameters, parts, sums, used.tolist(), strict=True):
            parameter.grad = part.copy_(total.view_as(part)) if is_used else None
        return numbers

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of the step by the loss scale."""
        self._scaler.unscale_(optimizer)
        self._is_unscaled = self._scaler.is_enabled()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights with the gradients of the step.

        With a loss scale, a step whose gradients overflowed to infinity or NaN only changes the scale.

        Raises:
            OutOfMemoryTogether: one of several processes had not enough memory for the state of the optimizer.
        """

        def step() -> None:
            self._scaler.step(optimizer)

        if optimizer.state:
            step()
        else:  # it allocates its state now, for which the memory may not be enough in some processes only
            self.processes.together(step, is_out_of_memory)
        self._scaler.update()
        self._is_unscaled = False

    def forget_step(self) -> None:
        """Get ready for new gradients after a step that was not finished."""
        if self._is_unscaled:
            # The scaler accepts no new gradients before an update; updating it to its own scale changes nothing else.
            self._scaler.update(self._scaler.get_scale())
            self._is_unscaled = False

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the state of the loss scale, empty without one."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with the loss scale of an earlier `state`."""
        if state:
            self._scaler.load_state_dict(state)
