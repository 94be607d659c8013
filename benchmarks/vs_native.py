"""Compare this pack with ComfyUI's own Train LoRA node and a plain diffusers + peft loop: speed and memory on the CPU.

    <ComfyUI's python> benchmarks/vs_native.py [--only small|sd15] [--algorithms] [--output FILE.json]

All three use the same random weights, latents and conditioning, and the same rank, optimizer, batch size and precision
(fp32). Each row is measured in its own process (`contestants.py`), so peak memory is per row. This file only starts
these processes one after another. It uses nothing but the standard library, because a child's peak memory includes
what its parent had in memory.

Run it on an otherwise idle machine; each row records the load average at its start.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared import save

HERE = Path(__file__).resolve().parent
THREADS = 2
RANK = 8
LAYERS = ("linear_and_convolution", "attention_and_feed_forward")
"""All layers that can have an adapter, as in ComfyUI's node, and this pack's default."""
PIXELS = {"small": {1: 64, 4: 128}, "sd15": {1: 256, 4: 256}}
"""The side of the images in pixels, by model and batch size."""
TIMED_STEPS = {"small": 30, "sd15": 7}
WARM_UP_STEPS = {"small": 3, "sd15": 1}

ALGORITHMS = ("lora", "rslora", "dora", "loha", "lokr")

CORE_TRAINS = "all layers, biases and norms"
"""The layers that ComfyUI's node trains; they cannot be chosen."""
CORE_AT_ITS_BEST = {"bypass_mode": True, "pytorch_attention": True, "checkpoint_depth": 2}
"""Settings of ComfyUI's node that save time and memory, although neither defaults nor help texts suggest them."""
CORE_LEFT_OUT = (
    "core runs 16 rows for a batch of 4 (see notes), which needs more than 24 GB and minutes per step on full SD1.5"
)
NOTES = [
    "Core is ComfyUI's own node, measured with its defaults (settings {}) and with the best settings found for it: "
    "bypass_mode, checkpoint_depth 2, and ComfyUI started with --use-pytorch-cross-attention.",
    "Core trains every linear and convolution layer (as linear_and_convolution here), and also every bias and norm. "
    "The layers cannot be chosen.",
    "Core applies each caption to each image of the batch, so a batch of B runs B * B rows through the model.",
    "Core's gradient checkpointing, at its default checkpoint_depth 1, treats the whole UNet as one block: it costs a "
    "second forward pass and saves no memory. Rows with checkpointing off are unaffected by checkpoint_depth.",
    "Core trains on a second copy of the model, which it reads from disk at its start. This is part of its start-up "
    "time and memory.",
    "Without bypass_mode, core makes a patched copy of every weight in every step and keeps it until the backward "
    "pass.",
    "On the CPU, ComfyUI uses its own sub-quadratic attention, written in Python; this pack uses PyTorch's attention.",
    "before_training_gb includes the model, Python, PyTorch and ComfyUI (0.8 GB without any model).",
    "seconds_per_step: the median. start_up_seconds: from calling the trainer to the end of its first step. "
    "share_of_matrix_rate: the least FLOP that a step needs (forward pass, and backward pass to the activations; "
    "adapters not counted) per second, as a share of the rate of a 4096 x 4096 fp32 matrix product.",
]

Row = dict[str, Any]


def rows(models: list[str]) -> Iterator[Row]:
    """Yield the rows to measure, in order."""
    for model in models:
        for batch, pixels in PIXELS[model].items():
            for checkpointing in (False, True):
                shared = {"model": model, "pixels": pixels, "batch": batch, "gradient_checkpointing": checkpointing}
                for settings in ({},) if checkpointing else ({}, CORE_AT_ITS_BEST):
                    row = {"contestant": "core", "layers": CORE_TRAINS, "settings": settings, **shared}
                    if model == "sd15" and batch > 1:
                        row["left_out"] = CORE_LEFT_OUT
                    yield row
                for layers in LAYERS[:1] if checkpointing else LAYERS:
                    for contestant in ("crucible", "diffusers"):
                        yield {"contestant": contestant, "layers": layers, "settings": {}, **shared}


def algorithm_rows(models: list[str]) -> Iterator[Row]:
    """Yield rows for this pack with each algorithm, and with text encoder training, on its default layers."""
    for model in models:
        for batch, pixels in PIXELS[model].items():
            shared = {"model": model, "pixels": pixels, "batch": batch, "gradient_checkpointing": False}
            variants = [{} if algorithm == "lora" else {"algorithm": algorithm} for algorithm in ALGORITHMS]
            if model == "sd15":
                variants.append({"text_encoder": True})
            for settings in variants:
                yield {"contestant": "crucible", "layers": LAYERS[1], "settings": settings, **shared}


def run_job(job: str, comfyui: Path, **arguments: Any) -> Any:
    """Run a function of contestants.py in a new process and return its result.

    Raises:
        RuntimeError: the process failed; the message ends with its error output.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        request = {"job": job, "comfyui": str(comfyui), "answer": str(answer), "threads": THREADS, **arguments}
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, str(HERE / "contestants.py"), json.dumps(request)]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        if process.returncode or not answer.exists():
            raise RuntimeError(f"{job} ended with {process.returncode}:\n{process.stderr[-3000:]}")
        return json.loads(answer.read_text(encoding="utf-8"))


def measure(row: Row, comfyui: Path, weights: Path, facts: dict[str, Any]) -> Row:
    """Measure a row; return it with its results, or with the error if it failed."""
    if "left_out" in row:
        return row
    row["load_average"] = round(os.getloadavg()[0], 2)
    model = row["model"]
    try:
        row |= run_job(
            "measure",
            comfyui,
            row=row,
            rank=RANK,
            weights=str(weights),
            warm_up=WARM_UP_STEPS[model],
            steps=TIMED_STEPS[model],
        )
    except RuntimeError as error:
        return row | {"error": str(error)}
    floor = facts["gflop_per_image"][f"{model} {row['pixels']}"] * row["batch"]
    reached = floor / row["seconds_per_step"]
    row["share_of_matrix_rate"] = round(reached / facts["matrix_gflop_per_second"], 3)
    return row


def find_comfyui() -> Path:
    candidates = [Path(os.environ["COMFYUI_PATH"])] if os.environ.get("COMFYUI_PATH") else []
    candidates += [parent.parent for parent in HERE.parents if parent.name == "custom_nodes"]
    candidates += [Path(sys.prefix).parent, Path.home() / "comfy" / "ComfyUI"]
    for path in candidates:
        if (path / "comfy_extras" / "nodes_train.py").is_file():
            return path
    raise SystemExit("ComfyUI was not found. Set COMFYUI_PATH to its folder.")


def hardware() -> dict[str, Any]:
    found = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads_used": THREADS}
    if Path("/proc/cpuinfo").exists():
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        cpu = {name.strip(): value.strip() for name, _, value in lines}
        numbers = [cpu.get(name, "?") for name in ("cpu family", "model")]
        found["cpu"] = f"{cpu.get('model name', found['cpu'])} (family {numbers[0]}, model {numbers[1]})"
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {**found, "memory_gib": round(pages * page / 2**30, 1), "system": platform.platform()}


def line(row: Row) -> str:
    settings = " ".join(f"{name}={value}" for name, value in row["settings"].items())
    shown = settings if row["contestant"] == "crucible" else "best"
    name = row["contestant"] + (f" ({shown})" if settings else "")
    text = (
        f"{row['model']:5} {row['pixels']:3} px  batch {row['batch']}  "
        f"checkpointing {'on ' if row['gradient_checkpointing'] else 'off'}  {name:12} {row['layers']:28} "
    )
    if "seconds_per_step" not in row:
        return text + ("skipped" if "left_out" in row else "failed: " + row["error"].splitlines()[-1])
    return text + (
        f"{row['seconds_per_step']:8.3f} s/step {row['share_of_matrix_rate']:6.1%} of rate  "
        f"start {row['start_up_seconds']:6.1f} s  "
        f"{row['before_training_gb']:5.2f} -> {row['peak_training_gb']:5.2f} GB  load {row['load_average']}"
    )


def comparisons(measured: list[Row]) -> list[Row]:
    """Compare this pack with the others at the same layers, batch size and checkpointing."""

    def key(row: Row) -> tuple[Any, ...]:
        return row["model"], row["pixels"], row["batch"], row["gradient_checkpointing"]

    done = [row for row in measured if "seconds_per_step" in row]
    found = []
    for ours in (row for row in done if row["contestant"] == "crucible"):
        for other in (row for row in done if row["contestant"] != "crucible" and key(row) == key(ours)):
            if other["layers"] not in (ours["layers"], CORE_TRAINS):
                continue
            found.append(
                {
                    **{name: ours[name] for name in ("model", "pixels", "batch", "gradient_checkpointing", "layers")},
                    "against": other["contestant"] + (" at its best" if other["settings"] else ""),
                    "times_as_fast": round(other["seconds_per_step"] / ours["seconds_per_step"], 2),
                    "share_of_its_memory": round(ours["peak_training_gb"] / other["peak_training_gb"], 2),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PIXELS, help="measure only this model")
    parser.add_argument("--contestant", choices=("core", "crucible", "diffusers"), help="measure only this contestant")
    parser.add_argument("--algorithms", action="store_true", help="compare this pack's algorithms instead")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="time only 3 steps per row, to check that all rows work")
    arguments = parser.parse_args()
    if arguments.quick:
        TIMED_STEPS.update(small=3, sd15=3)
    models = [arguments.only] if arguments.only else list(PIXELS)
    comfyui = find_comfyui()
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "what": "rank 8 LoRA, AdamW, fp32, CPU, random weights; medians over single steps, one new process per row",
        "hardware": hardware(),
        "notes": NOTES,
        **run_job(
            "facts",
            comfyui,
            sizes=[[model, pixels] for model in models for pixels in sorted(set(PIXELS[model].values()))],
        ),
        "rows": [],
    }
    print(json.dumps(result, indent=1), flush=True)
    started = time.time()
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / f"{model}.safetensors"
            run_job("make_weights", comfyui, model=model, weights=str(weights))
            for row in (algorithm_rows if arguments.algorithms else rows)([model]):
                if arguments.contestant in (None, row["contestant"]):
                    result["rows"].append(measure(row, comfyui, weights, result))
                    print(line(result["rows"][-1]), flush=True)
                    result["comparisons"] = comparisons(result["rows"])
                    save(result, arguments.output)
    for one in result["comparisons"]:
        print(" ".join(f"{name}={value}" for name, value in one.items()))
    result["minutes"] = round((time.time() - started) / 60, 1)
    save(result, arguments.output)


if __name__ == "__main__":
    main()
