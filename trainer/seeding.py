"""Random numbers that depend on nothing but the run's seed and what they are for.

Every draw has a generator of its own, named by its purpose and position ("noise", step, row). So a run can be
resumed at any step, a batch can be split after an out-of-memory error, and two base models can be compared,
without any state being carried along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose. CPU on every device: CUDA's numbers differ between cards."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global random numbers from this seed, for functions that take no generator; afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
