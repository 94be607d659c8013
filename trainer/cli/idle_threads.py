"""Threads of the CPU that leave room for other programs."""

from __future__ import annotations

import os
import shutil

SPINS = "10000"
"""How often a waiting thread of the CPU looks for work before it sleeps. Steps of the demo on two cores take as long as
with GNU OpenMP's own 300,000 on an idle machine, and 60 % of the time beside three busy processes. Not looking at all
(OMP_WAIT_POLICY=PASSIVE) is twice as fast again there, but takes three times as long on an idle machine."""


def let_idle_threads_sleep() -> None:
    """Keep threads of the CPU that wait for others from using a core for long, which slows down all programs.

    GNU OpenMP reads this when torch is imported. With a graphics card the CPU has little to compute.
    """
    if shutil.which("nvidia-smi") is None and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
