"""Compare this trainer with transformers' Trainer and TRL's SFTTrainer on a language model: speed and memory on a CPU.

    <python with the pack's packages> benchmarks/language.py [--repeats N] [--only NAME ...] [--output FILE.json]

A random Qwen3 of about 50 million parameters is trained on the same rows of unequal length by each contestant, with the
same rank, layers, optimizer, batch size and precision (fp32), each in its own process. The last rows compare the memory
of the loss alone at a vocabulary of 150,000. SFTTrainer takes part if trl is installed.

Run it on an otherwise idle machine; each row records the load average at its start. This file uses nothing but the
standard library, because a child's peak memory includes what its parent had in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from language_jobs import run_job, threads, versions
from shared import ROOT, now, save

SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
}
LENGTHS_AND_BATCHES = ((128, 1), (128, 4), (256, 4), (512, 1), (512, 2))
"""The longest row in tokens, and the rows of a batch. Rows have half of it to all of it, half of that in the answer."""
STEPS, WARM_UP = 12, 2
RANK, LEARNING_RATE = 8, 1e-4
LOSS = {"tokens": 512, "vocabulary": 150_000, "width": 512}

CONTESTANTS = ("crucible", "trainer", "trl")
WORDS = ("red", "blue", "green", "heart", "circle", "square", "big", "small")
"""Words that are one token each."""

NOTES = [
    "trainer is transformers' Trainer with peft's LoRA and a collator that pads to the longest row of the batch; trl "
    "is SFTTrainer with its defaults, but for what all share. It also trains the line break after each answer.",
    "tokens_per_second: tokens of the rows, prompts included and padding left out, by the time of the steps after the "
    "warm-up; the median of the repeats. This trainer puts rows of similar length into a batch, which pads less.",
    "tokens_per_cpu_second: the same by the time that the process computed, which other processes disturb less.",
    "peak_training_gb: the peak resident memory of the process, with the model, Python and PyTorch; the median.",
    "loss peak: one forward and backward pass from hidden states, float32; peak_gb is what it takes beside its inputs.",
]


def write_rows(path: Path, length: int, count: int) -> None:
    """Write rows of random words, of half the length to the whole length in tokens."""
    random = Random(length)
    rows = []
    for _ in range(count):
        words = random.randint(length // 2, length - 12) // 2  # the template takes less than 12 tokens
        prompt, answer = (" ".join(random.choices(WORDS, k=words)) for _ in range(2))
        rows.append({"prompt": prompt, "completion": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(contestant: str, repeats: int, **arguments: Any) -> dict[str, Any]:
    """Run a contestant several times and return the medians, or the error if it failed."""
    load = round(os.getloadavg()[0], 2)
    try:
        found = [run_job(contestant, **arguments) for _ in range(repeats)]
    except RuntimeError as error:
        return {"error": str(error), "load_average": load}
    medians = {
        key: round(statistics.median(one[key] for one in found), 3)
        for key, value in found[0].items()
        if isinstance(value, (int, float))
    }
    return {**found[0], **medians, "load_average": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--lengths", nargs="+", type=int, help="only rows of these lengths")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    contestants = [name for name in options.only if name != "trl" or find_spec("trl") is not None]
    result: dict[str, Any] = {
        "date": now(),
        "hardware": {"cores": os.cpu_count(), "threads": threads()},
        "system": platform.platform(),
        "versions": versions(),
        "notes": NOTES,
        "repeats": options.repeats,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        tokenizer = ROOT / "trainer" / "demo" / "text" / "model"
        result["model"] = {**SIZES, **run_job("make_model", folder=str(model), tokenizer=str(tokenizer), **SIZES)}
        for length, batch in LENGTHS_AND_BATCHES:
            if options.lengths and length not in options.lengths:
                continue
            data = Path(temporary) / f"{length}.jsonl"
            write_rows(data, length, STEPS * batch)
            for contestant in contestants:
                row = {"contestant": contestant, "length": length, "batch": batch}
                row |= measure(
                    contestant,
                    options.repeats,
                    model=str(model),
                    data=str(data),
                    batch=batch,
                    steps=STEPS,
                    warm_up=WARM_UP,
                    rank=RANK,
                    learning_rate=LEARNING_RATE,
                )
                report(result, row, options.output)
    for chunked in (True, False) if "crucible" in contestants else (False,):
        row = {"contestant": "chunked loss" if chunked else "plain loss", **LOSS}
        report(result, row | measure("loss_peak", options.repeats, chunked=chunked, **LOSS), options.output)


def report(result: dict[str, Any], row: dict[str, Any], output: Path | None) -> None:
    """Print a row and save all rows so far."""
    print(json.dumps(row), flush=True)
    result["rows"].append(row)
    save(result, output)


if __name__ == "__main__":
    main()
