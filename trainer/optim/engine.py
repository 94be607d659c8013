"""The engine of a run: its device, precision, backward pass and optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtypes of the precisions that settings can name."""

Decision = TypeVar("Decision")


class Engine:
    """Device, precision, backward and optimizer step of a run with a single process.

    A run with several processes can have the same interface: gradients are averaged over the processes, all of them
    follow the decision of one, and only one writes files.

    Args:
        device: the device of the adapters and the activations.
        compute: the dtype of activations and matrix products; the adapters themselves are always float32.

    Attributes:
        writes: whether this process writes the files of the run.
    """

    writes = True

    def __init__(self, device: torch.device, compute: torch.dtype) -> None:
        self.device = device
        self.compute = compute
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

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Combine the gradients of a step over all processes; a single process already has all of them."""

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of the step by the loss scale."""
        self._scaler.unscale_(optimizer)
        self._is_unscaled = self._scaler.is_enabled()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights with the gradients of the step.

        With a loss scale, a step whose gradients overflowed to infinity or NaN only changes the scale.
        """
        self._scaler.step(optimizer)
        self._scaler.update()
        self._is_unscaled = False

    def forget_step(self) -> None:
        """Get ready for new gradients after a step that was not finished."""
        if self._is_unscaled:
            # The scaler accepts no new gradients before an update; updating it to its own scale changes nothing else.
            self._scaler.update(self._scaler.get_scale())
            self._is_unscaled = False

    def agree(self, decision: Decision) -> Decision:
        """Return what all processes do (such as stopping, or going back after a NaN), given this one's decision.

        A single process follows its own decision.
        """
        return decision

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the state of the loss scale, empty without one."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with the loss scale of an earlier `state`."""
        if state:
            self._scaler.load_state_dict(state)
