"""Measure how long it takes to load a large LoRA, and a stack of many again and again.

    python benchmarks/loading_loras.py [--stack 20] [--output FILE.json]

The large LoRA has 0.46 GB, as one for Flux.1 at rank 64; those of the stack have a tenth of it each. Their bytes are in
the system's cache of files. `mapped_only` is what safetensors needs to map the large file, which is what ComfyUI's own
loader does; the pack also checks that every value is finite.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import circumstances, load_trainer, save

ROUNDS = 5
"""The number of measurements; the median is reported."""


def write(path: Path, layers: int) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for layer in range(layers):
        name = f"lora_unet_single_blocks_{layer}_linear1"
        tensors[f"{name}.lora_down.weight"] = torch.randn(64, 3072).half()
        tensors[f"{name}.lora_up.weight"] = torch.randn(4096, 64).half()
        tensors[f"{name}.alpha"] = torch.tensor(64.0).half()
    save_file(tensors, path)


def measured(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> dict[str, Any]:
    found = []
    for _ in range(ROUNDS):
        before()
        began = time.perf_counter()
        call()
        found.append(round(time.perf_counter() - began, 4))
    return {"seconds": statistics.median(found), "all_seconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stack", type=int, default=20)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    load_trainer()
    from lora_crucible.formats import lora_model
    from lora_crucible.formats.lora_file import read_lora
    from safetensors.torch import load_file

    def forget() -> None:
        lora_model._kept = lora_model._Kept()

    with tempfile.TemporaryDirectory() as temporary:
        large = Path(temporary) / "large.safetensors"
        write(large, 500)
        stack = [Path(temporary) / f"{number}.safetensors" for number in range(arguments.stack)]
        for path in stack:
            write(path, 50)

        def load_stack() -> None:
            for path in stack:
                lora_model.load_lora(path, path.name)

        result = {
            **circumstances(),
            "what": f"a LoRA of {large.stat().st_size / 1e6:.0f} MB, and a stack of {len(stack)} of a tenth of it",
            "mapped_only": measured(lambda: load_file(large)),
            "large": measured(lambda: read_lora(large)),
            "stack_first": measured(load_stack, before=forget),
            "stack_again": measured(load_stack),
        }
    print(json.dumps(result, indent=1))
    save(result, arguments.output)


if __name__ == "__main__":
    main()
