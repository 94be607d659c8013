"""Measure the time and peak memory of merging three LoRAs of SDXL's size and rank 32, for each method.

    <python with the pack's standalone packages> benchmarks/merging.py [METHOD ...] [--output FILE.json]

The real command line merges files with random float16 weights for all linear layers of the UNet's transformer blocks.
Earlier results of other methods are kept in the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from guard_cost import sdxl_layers
from shared import ROOT, circumstances, load_trainer, save

RANK, LORAS = 32, 3


def write_loras(folder: Path) -> list[str]:
    """Write random LoRAs with kohya's names; return their paths with strengths, as for the command line."""
    import torch
    from lora_crucible.formats.lora_file import lora_layer, to_state_dict, write_lora

    written = []
    for number in range(LORAS):
        torch.manual_seed(number)
        layers = {
            key: lora_layer(torch.randn(RANK, inputs) / 30, torch.randn(outputs, RANK) / 30, RANK)
            for key, (outputs, inputs) in sdxl_layers().items()
        }
        path = folder / f"{number}.safetensors"
        write_lora(
            path, to_state_dict(layers, torch.float16), {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
        )
        written.append(f"{path}:0.{5 + number}")
    return written


def measured(method: str, loras: list[str], folder: Path) -> dict[str, Any]:
    output = folder / f"{method}.safetensors"
    command = [sys.executable, "-m", "trainer", "merge", *loras, "--method", method, "--output", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(told)
    lost = re.search(r"Lost by the lower rank: ([\d.]+)%", told)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "lost_percent": float(lost[1]) if lost else 0.0,
        "file_gb": round(output.stat().st_size / 1e9, 3),
    }


def main() -> None:
    load_trainer()
    from lora_crucible.merging.recipe import METHODS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=" | ".join(METHODS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "merging.json")
    options = parser.parse_args()
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"unknown method: {', '.join(unknown)}")
    result: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        result = json.loads(options.output.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        loras = write_loras(Path(folder))
        result["loras"] = {"count": LORAS, "rank": RANK, "layers": len(sdxl_layers()), "dtype": "float16"}
        for method in options.methods or METHODS:
            result[method] = measured(method, loras, Path(folder))
            print(method, result[method], flush=True)
            result.update(circumstances())
            save(result, options.output)


if __name__ == "__main__":
    main()
