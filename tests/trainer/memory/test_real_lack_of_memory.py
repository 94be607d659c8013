"""A process that the system gives no more memory, in the middle of a training."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited by Linux's means")
def test_a_run_ends_well_when_the_system_refuses_memory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.limited_memory", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "100000"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "finished after 3 of 3 steps" in done.stdout
    assert re.search(r"Step 2 ran out of memory at .*continued with micro-batches of 4 instead of 8", done.stdout)
    assert (tmp_path / "lora.safetensors").exists()
