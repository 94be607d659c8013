"""Simulated out-of-memory errors, as raised by torch, in any phase of a run on any base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lora_crucible.models.base import BaseModel
from lora_crucible.models.examples import CachedExample
from lora_crucible.seeding import derived_seed

SEED = 42
"""The seed of the runs: the config's default."""

MOST_ROWS = 16
"""The largest number of rows in a step."""


def lack_of_memory() -> torch.cuda.OutOfMemoryError:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more of it.")


class Faults:
    """Makes a base model and AdamW run out of memory.

    Args:
        base_model: the base model to patch.
        monkeypatch: pytest's fixture.
        most_offloads: how many times the base model can be offloaded further.

    Attributes:
        fits: a function that returns whether there is enough memory for a training pass over the given rows.
        checkpointing, offloaded: the current state of the base model.
        happened: the phases that ran out of memory, in order.
        passes: the number of rows of each attempted training pass.
        plans: the number of rows, checkpointing and offloaded of each attempted training pass.
    """

    def __init__(self, base_model: BaseModel, monkeypatch: Any, most_offloads: int = 0) -> None:
        self._base_model = base_model
        self._most_offloads = most_offloads
        self._planned: dict[str, list[Callable[[], bool]]] = {}
        self.fits: Callable[[Sequence[CachedExample]], bool] = lambda rows: True
        self.checkpointing, self.offloaded = False, 0
        self.happened: list[str] = []
        self.passes: list[int] = []
        self.plans: list[tuple[int, bool, int]] = []
        self._parameters: list[torch.nn.Parameter] = []
        self._seeds: Sequence[int] = ()
        self._losses, self._attached = base_model.losses, base_model.attached
        self._set_checkpointing = base_model.memory.set_checkpointing
        for name in ("losses", "attached"):
            monkeypatch.setattr(base_model, name, getattr(self, f"_on_{name}"))
        for name in ("set_checkpointing", "offload_more"):
            monkeypatch.setattr(base_model.memory, name, getattr(self, f"_on_{name}"))
        for owner, name in ((base_model.previewer, "draw"), (base_model, "cache_inputs"), (base_model, "portable")):
            monkeypatch.setattr(owner, name, self._failing(name, getattr(owner, name)))
        self._optimizer_step = torch.optim.AdamW.step
        faults = self

        def step(optimizer: torch.optim.AdamW, closure: None = None) -> None:
            faults._on_optimizer_step(optimizer)

        monkeypatch.setattr(torch.optim.AdamW, "step", step)

    def at_step(self, phase: str, step: int, row: int = 0) -> None:
        """Run out of memory once in a training step.

        Args:
            phase: "forward", "backward" or "optimizer".
            step: the number of the step, counted from 1.
            row: a row of the batch that fails, for forward and backward.
        """
        rows = range(MOST_ROWS) if phase == "optimizer" else [row]
        seeds = {derived_seed(SEED, "row", step - 1, number) for number in rows}
        times = len(self._planned.setdefault(phase, []))
        self._planned[phase].append(lambda: not seeds.isdisjoint(self._seeds) and self.happened.count(phase) == times)

    def next_times(self, phase: str, times: int = 1) -> None:
        """Run out of memory the next `times` times in `draw`, `cache_inputs`, `portable` or `validation`.

        `portable` is called while a checkpoint is written.
        """
        self._planned[phase] = [lambda: self.happened.count(phase) < times]

    def _run_out(self, phase: str) -> bool:
        if not any(is_due() for is_due in self._planned.get(phase, ())):
            return False
        self.happened.append(phase)
        return True

    def _failing(self, phase: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **kwargs: Any) -> Any:
            if self._run_out(phase):
                raise lack_of_memory()
            return action(*args, **kwargs)

        return acted

    @contextmanager
    def _on_attached(self, spec: Any, gradient_checkpointing: bool) -> Any:
        self.checkpointing = gradient_checkpointing
        with self._attached(spec, gradient_checkpointing) as adapters:
            self._parameters = adapters.parameters()
            handle = self._parameters[0].register_hook(self._on_last_gradient)
            yield adapters
            handle.remove()

    def _on_losses(self, rows: Sequence[CachedExample], seeds: Sequence[int], *args: Any) -> Any:
        self._seeds = tuple(seeds)
        if not torch.is_grad_enabled():
            if self._run_out("validation"):
                raise lack_of_memory()
            return self._losses(rows, seeds, *args)
        self.passes.append(len(rows))
        self.plans.append((len(rows), self.checkpointing, self.offloaded))
        losses = self._losses(rows, seeds, *args)
        if not self.fits(rows) or self._run_out("forward"):
            raise lack_of_memory()
        return losses

    def _on_last_gradient(self, gradient: torch.Tensor) -> None:
        """Fail in backward, when all other gradients have been accumulated."""
        if self._run_out("backward"):
            raise lack_of_memory()

    def _on_optimizer_step(self, optimizer: torch.optim.AdamW) -> None:
        if self._run_out("optimizer"):
            with torch.no_grad():
                for parameter in self._parameters[: len(self._parameters) // 2]:
                    parameter.add_(1.0)
            raise lack_of_memory()
        self._optimizer_step(optimizer)

    def _on_set_checkpointing(self, on: bool) -> None:
        self.checkpointing = on
        self._set_checkpointing(on)

    def _on_offload_more(self) -> bool:
        if self.offloaded == self._most_offloads:
            return False
        self.offloaded += 1
        return True
