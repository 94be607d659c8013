"""Measure how long it takes to read the headers of 1,000 LoRA files, with and without identifying the architecture.

    python benchmarks/lora_headers.py [--files 1000] [--output FILE.json]

The files have keys, shapes and metadata like those of kohya's trainer at six ranks, with and without the text encoder:
half are for SD1.5, three in ten for SDXL and the rest for Flux.1. Their tensors are sparse holes in the files, which
are never read. `each_anew` is the time if the layers of no two files were alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import circumstances, load_trainer, save

ROUNDS = 5
"""The number of measurements; the median is reported."""

RANKS = (4, 8, 16, 32, 64, 128)
MEMBERS = (
    ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_{}_attn2_to_k", 768, 640, 192),
    ("lora_unet_input_blocks_4_1_transformer_blocks_{}_attn2_to_k", 2048, 640, 722),
    ("lora_unet_single_blocks_{}_modulation_lin", 3072, 9216, 304),
)
"""The key, input and output size and number of the layers of SD1.5, SDXL and Flux.1."""

TEXT_LAYERS = 72


def make_files(folder: Path, count: int) -> int:
    """Write LoRA files to a folder; return the total size of their headers in bytes."""
    size = 0
    for number in range(count):
        key, inputs, outputs, layers = MEMBERS[0 if number % 10 < 5 else 1 if number % 10 < 8 else 2]
        rank, text_layers = RANKS[number // 10 % len(RANKS)], TEXT_LAYERS if number // 60 % 2 else 0
        header: dict[str, Any] = {"__metadata__": metadata(number)}
        end = 0
        names = [
            f"{key.format(layer % 30)}_{layer // 30}" if layer >= 30 else key.format(layer) for layer in range(layers)
        ]
        names += [f"lora_te_text_model_encoder_layers_{layer}_mlp_fc1" for layer in range(text_layers)]
        for name in names:
            for suffix, shape in (
                ("lora_down.weight", [rank, inputs]),
                ("lora_up.weight", [outputs, rank]),
                ("alpha", []),
            ):
                begin, end = end, end + 2 * (shape[0] * shape[1] if shape else 1)
                header[f"{name}.{suffix}"] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        with open(folder / f"{number:04}.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        size += 8 + len(text)
    return size


def metadata(number: int) -> dict[str, str]:
    tags = {f"a tag of some length {tag}": (tag * number) % 30 + 1 for tag in range(300)}
    return {
        **{f"ss_setting_{setting}": str(setting * number) for setting in range(70)},
        "ss_base_model_version": ("sd_v1", "sdxl_base_v1-0", "flux1")[
            0 if number % 10 < 5 else 1 if number % 10 < 8 else 2
        ],
        "ss_tag_frequency": json.dumps({"10_subject": {"subject": 40, **tags}}),
    }


def seconds(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> list[float]:
    found = []
    for _ in range(ROUNDS):
        before()
        began = time.perf_counter()
        call()
        found.append(round(time.perf_counter() - began, 3))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    load_trainer()
    from lora_crucible.formats import identify as module
    from lora_crucible.formats.header import read_header
    from lora_crucible.formats.identify import identify
    from lora_crucible.formats.trigger_words import trigger_words

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = make_files(folder, arguments.files)
        paths = sorted(folder.iterdir())
        headers = [read_header(path) for path in paths]
        assert {identify(header.shapes, header.metadata).id for header in headers} == {"sd15", "sdxl", "flux1"}
        assert all(trigger_words(header.metadata)[0] == ("subject",) for header in headers)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        listed = seconds(lambda: [read_header(path).metadata for path in paths])
        told = seconds(
            lambda: [identify((one := read_header(path)).shapes, one.metadata) for path in paths], module._known.clear
        )
        anew = seconds(lambda: [identify(dict((one := read_header(path)).shapes), one.metadata) for path in paths])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result = {
        **circumstances(),
        "what": f"the headers of {arguments.files} LoRA files, {size / 1e6:.0f} MB",
        "metadata": {"seconds": statistics.median(listed), "all_seconds": listed},
        "metadata_and_architecture": {"seconds": statistics.median(told), "all_seconds": told},
        "each_anew": {"seconds": statistics.median(anew), "all_seconds": anew},
        "further_memory_mb": round(peak * 1024 / 1e6, 1),
    }
    print(json.dumps(result, indent=1))
    save(result, arguments.output)


if __name__ == "__main__":
    main()
