"""The trained weights of a run and everything that updates them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ResolvedConfig
from ..files.tensor_tree import on_cpu
from .engine import Engine
from .lr_schedule import make_schedule
from .optimizers import ParameterGroup, effective_learning_rates, make_optimizer

CHECKSUMS = 16_777_213
"""The number of different checksums: the largest prime up to which float32 has every whole number."""

CAREFUL_GRAD_NORM = 0.5
"""The largest gradient norm of a run whose learning rate was lowered after a NaN or infinite step."""


class OptimizerStepper:
    """The trained weights with their optimizer, schedule, gradient scaling and clipping, and moving average.

    Args:
        groups: the weights to train, at least one.
        config: the settings of the run.
        engine: the engine that computes gradients and steps.

    Attributes:
        parameters: all weights that are trained.
        optimizer: the optimizer.
        engine: the engine that computes gradients and steps.
        mid_step: whether an optimizer step was interrupted, so that weights and optimizer state are inconsistent.

    Raises:
        CrucibleError: the optimizer cannot train these weights.
    """

    def __init__(self, groups: Sequence[ParameterGroup], config: ResolvedConfig, engine: Engine) -> None:
        self.parameters: list[nn.Parameter] = [weight for group in groups for weight in group.parameters]
        optimizer: Any = make_optimizer(groups, config)  # schedule-free has more methods than torch's
        self.optimizer = optimizer
        self._schedule = make_schedule(self.optimizer, config)
        self.engine = engine
        self._rates = [group.learning_rate for group in groups]
        self._given_grad_norm = self._max_grad_norm = config.max_grad_norm
        self.mid_step = False
        # Schedule-free optimizers use other weights for training than for the result.
        self._schedule_free = config.optimizer == "schedule_free_adamw"
        if self._schedule_free:
            self.optimizer.train()
        self._average: Any = None
        if config.ema_decay:
            from diffusers.training_utils import EMAModel

            # With its warmup: the decay of step t is at most t / (9 + t).
            self._average = EMAModel(self.parameters, decay=config.ema_decay, foreach=True)

    @property
    def optimizer_name(self) -> str:
        """The full name of the optimizer's class."""
        return f"{type(self.optimizer).__module__}.{type(self.optimizer).__qualname__}"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.parameters[0].device

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss to those of the step."""
        self.engine.backward(loss)

    def clip_gradients(self) -> Tensor:
        """Clip the gradients of the step, and return their norm before clipping as a scalar on the device."""
        self.engine.unscale(self.optimizer)
        return nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm)

    def step(self) -> dict[str, float]:
        """Update the weights with the clipped gradients, discard these, and return the learning rates used by group."""
        rates = effective_learning_rates(self.optimizer)
        self.mid_step = True
        self.engine.step(self.optimizer)
        if self._schedule is None:
            rates = {group["name"]: group["scheduled_lr"] for group in self.optimizer.param_groups}
        else:
            self._schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.step(self.parameters)
        self.mid_step = False
        return rates

    def skip(self) -> dict[str, float]:
        """Discard the gradients and leave the weights unchanged; only the schedule advances.

        Returns:
            The learning rates that would have been used, by group.
        """
        rates = effective_learning_rates(self.optimizer)
        self.forget_gradients()
        if self._schedule is None:
            return {group["name"]: group["scheduled_lr"] for group in self.optimizer.param_groups}
        self._schedule.last_epoch += 1  # its `step` warns if the optimizer has not stepped before
        self._follow_schedule()
        return rates

    def forget_gradients(self) -> None:
        """Discard the gradients of a step that was not finished."""
        self.optimizer.zero_grad(set_to_none=True)
        self.engine.forget_step()

    @torch.no_grad()
    def checksum(self) -> Tensor:
        """Return a number on the device, exact in float32, that differs if any weight does in any bit (most likely)."""
        sums = [weight.detach().view(torch.int32).sum(dtype=torch.int64) for weight in self.parameters]
        places = torch.arange(1, len(sums) + 1, device=self.device)
        return ((torch.stack(sums) * places).sum() % CHECKSUMS).float()

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Return whether no weight is NaN or infinite. Waits for the device."""
        return all(bool(weight.isfinite().all()) for weight in self.parameters)

    def slow_down(self, factor: float) -> None:
        """Multiply the learning rates of the config by `factor` from now on; below 1, also clip gradients to at most
        `CAREFUL_GRAD_NORM`."""
        careful = min(CAREFUL_GRAD_NORM, self._given_grad_norm)
        self._max_grad_norm = careful if factor < 1 else self._given_grad_norm
        if self._schedule is not None:
            self._schedule.base_lrs = [rate * factor for rate in self._rates]
            self._follow_schedule()
        else:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor

    def _follow_schedule(self) -> None:
        """Give the optimizer the learning rates that the schedule has for the next step."""
        assert self._schedule is not None
        shares, step = self._schedule.lr_lambdas, self._schedule.last_epoch
        for group, rate, share in zip(self.optimizer.param_groups, self._schedule.base_lrs, shares, strict=True):
            group["lr"] = rate * share(step)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, copied to the CPU: weights, optimizer, schedule, loss scale and average."""
        return on_cpu(
            {
                "weights": [weight.detach() for weight in self.parameters],
                "optimizer": self.optimizer.state_dict(),
                "schedule": None if self._schedule is None else self._schedule.last_epoch,
                "scaler": self.engine.state(),
                "average": None if self._average is None else self._average.state_dict(),
            }
        )

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of weights of the same shapes and the same optimizer.

        The learning rates are those of this run's config and schedule, which may be longer than that of the state.
        """
        self.forget_gradients()
        self.mid_step = False
        for weight, value in zip(self.parameters, state["weights"], strict=True):
            weight.copy_(value)
        # The optimizer would change the tensors of the state where they are on its device already.
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))
        if self._schedule is not None:
            self._schedule.last_epoch = state["schedule"]
        self.slow_down(1.0)
        self.engine.restore(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
            self._average.to(self.device)

    @contextmanager
    def weights_for_use(self) -> Iterator[None]:
        """Give the weights, inside the context, the values for samples, validation and the file: their average if one
        is kept. On exit they are what they were, so that using them never changes the training."""
        if self._average is None and not self._schedule_free:
            yield
            return
        with torch.no_grad():
            kept = [weight.clone() for weight in self.parameters]
            if self._schedule_free:
                self.optimizer.eval()
            else:
                self._average.copy_to(self.parameters)
        try:
            yield
        finally:
            if self._schedule_free:
                self.optimizer.train()
            with torch.no_grad():
                for weight, was in zip(self.parameters, kept, strict=True):
                    weight.copy_(was)
