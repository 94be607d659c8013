"""The Muon optimizer with AdamW for vectors; with it, the demo's VAE needs far fewer steps than with AdamW alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return the nearest matrix whose singular values are all about one, by five Newton-Schulz iterations.

    The coefficients are those of Keller Jordan, https://kellerjordan.github.io/posts/muon/
    """
    transposed = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if transposed else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized steps, for matrices and convolutions (treated as matrices, out x rest).

    torch.optim.Muon does not accept convolutions, which make up most of a UNet.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                average = self.state[parameter].setdefault("average", torch.zeros_like(gradient))
                average.lerp_(gradient, 1 - group["momentum"])
                update = orthogonalize(gradient.lerp(average, group["momentum"]).flatten(1))
                rows, columns = update.shape
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


class Optimizer:
    """Muon for a model's matrices and AdamW for its embeddings and vectors, with one learning rate schedule.

    The learning rates rise for the first twentieth of `steps` and then decay linearly to zero.
    """

    def __init__(self, model: nn.Module, steps: int, matrix_rate: float, vector_rate: float) -> None:
        embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
        matrices = [weight for weight in model.parameters() if weight.ndim > 1 and weight not in embeddings]
        vectors = [weight for weight in model.parameters() if weight.ndim < 2 or weight in embeddings]
        self.parts = [
            Muon(matrices, lr=matrix_rate),
            torch.optim.AdamW(vectors, lr=vector_rate, betas=(0.9, 0.99), weight_decay=0),
        ]
        warmup = max(1, steps // 20)
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                part, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup)))
            )
            for part in self.parts
        ]

    def step(self, loss: Tensor) -> None:
        """Run the backward pass of a loss and update the model by one step."""
        for part in self.parts:
            part.zero_grad()
        loss.backward()
        for part, schedule in zip(self.parts, self.schedules, strict=True):
            part.step()
            schedule.step()
