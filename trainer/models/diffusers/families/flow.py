"""What all flow models of diffusers have in common."""

from __future__ import annotations

import math
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from ...diffusion.objective import shift_by_area
from ...previews import Sampling
from .base import Config, Family


class FlowFamily(Family):
    """A family that predicts flow and is sampled by Euler steps along it."""

    samplers = ("euler",)
    schedulers = ("normal", "simple", "karras", "exponential")

    def shift(self, scheduler: Config, pixels: float, native_pixels: float) -> float:
        if not scheduler.get("use_dynamic_shifting"):
            return shift_by_area(fixed_shift(scheduler), pixels, native_pixels)
        # As the pipelines compute it: linear in the number of 16 x 16 pixel tokens, and mostly a logarithm.
        fewest, most = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
        low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
        value = low + (high - low) * (pixels / 256 - fewest) / (most - fewest)
        return float(value if scheduler.get("time_shift_type") == "linear" else math.exp(value))

    def scheduler(self, config: Config, sampling: Sampling) -> Any:
        known = {name: value for name, value in config.items() if not name.startswith("_")}
        return FlowMatchEulerDiscreteScheduler.from_config(
            known
            | {
                "shift": fixed_shift(config),
                "use_karras_sigmas": sampling.scheduler == "karras",
                "use_exponential_sigmas": sampling.scheduler == "exponential",
                "use_beta_sigmas": False,
            }
        )


def fixed_shift(scheduler: Config) -> float:
    """Return the shift of a scheduler that is the same for all sizes of images."""
    return float(scheduler.get("flow_shift") or scheduler.get("shift") or 1.0)
