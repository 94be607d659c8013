"""Random numbers that depend only on the run's seed and on their purpose.

Every draw has its own generator, named by its purpose and position ("noise", step, row). Without keeping any state, a
run can therefore be resumed at any step, a batch can be split after an out-of-memory error, and two base models can be
compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a generator for one purpose, on the CPU for every device, because CUDA's numbers differ between cards."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator inside the context, for functions that take no generator; restore it afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
