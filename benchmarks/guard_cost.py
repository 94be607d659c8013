"""Measure what the protection against faults costs when there are none.

    <python with the pack's standalone packages> benchmarks/guard_cost.py [step_time | stall ...] [--output FILE.json]

`step_time`: the time of a step with the guard, the log and the hooks, and without them, alternating within one run.

`stall`: the longest step while a checkpoint is written. For a LoRA of SDXL's size with random tensors, also how long
training waits while the state is copied, and how much matrix multiplications are slowed while it is written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import circumstances, load_trainer, save

STEPS = 300
"""The number of steps of a run; for `step_time`, half of them run with the protection and half without."""

LOOKS = 1000

EVERY = 10
"""The number of steps between two checkpoints, for `stall`."""

RANK = 16


def demo_run(after_step: Callable[[Callable[[], None], int], None], **values: Any) -> None:
    """Train on the demo model.

    Args:
        after_step: a function that is called after each step with the usual work after a step, as a function, and the
            number of the step.
        values: settings of the run.
    """
    from lora_crucible.config import parse_config
    from lora_crucible.data.images.load import load_dataset
    from lora_crucible.models.diffusers.model import DiffusersBaseModel
    from lora_crucible.runs.paths import RunFiles
    from lora_crucible.training import run
    from lora_crucible.training.plan import plan_run
    from lora_crucible.training.trainer import Trainer

    class Timed(Trainer):
        def _after_step(self, report: Any) -> None:
            after_step(lambda: super(Timed, self)._after_step(report), report.step)
            self.state.step = report.step

    settings = {"base_model": "demo", "train_data_dir": "demo", "batch_size": 4, "sample_steps": 1}
    config = parse_config({**settings, "measure": "never", "sample_every_n_steps": 10**6, **values})
    run.Trainer = Timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = RunFiles.claim("timed", Path(folder), Path(folder))
            base_model = DiffusersBaseModel("demo")
            run.run_training(base_model, plan_run(base_model, load_dataset(config.data), config), files)
    finally:
        run.Trainer = Trainer


def step_time(result: dict[str, Any]) -> None:
    """Measure the time of a step, including the work after it, with and without the protection.

    On devices without memory statistics, a thread that samples the memory of the process runs all the time; its share
    of the time is reported separately.
    """
    import torch
    from lora_crucible.hardware.device_memory import INTERVAL, PeakMeter
    from lora_crucible.monitoring.anomalies import AnomalyDetector

    seconds: dict[bool, list[float]] = {True: [], False: []}
    last = 0.0

    def after_step(do: Callable[[], None], step: int) -> None:
        nonlocal last
        with_everything = step % 2 == 0
        if with_everything:
            do()
        now = time.perf_counter()
        if step > 10:
            seconds[with_everything].append(now - last)
        last = now

    judge = AnomalyDetector.judge
    AnomalyDetector.judge = lambda self, step, gradients: judge(self, step, gradients) if step % 2 == 0 else "go on"
    try:
        demo_run(after_step, max_train_steps=STEPS, checkpoints_kept=0)
    finally:
        AnomalyDetector.judge = judge
    with PeakMeter(torch.device("cpu")) as meter:
        started = time.perf_counter()
        for _ in range(LOOKS):
            meter.peak  # noqa: B018
        look = (time.perf_counter() - started) / LOOKS
    with_it, without = (statistics.median(seconds[kind]) for kind in (True, False))
    result.update(
        steps=STEPS,
        median_ms_with=round(with_it * 1000, 3),
        median_ms_without=round(without * 1000, 3),
        cost_percent=round(100 * (with_it / without - 1), 2),
        looks_at_memory_percent=round(100 * look / INTERVAL, 2),
    )
    print(result, flush=True)


def stall(result: dict[str, Any]) -> None:
    result["demo"] = demo_stall()
    print(result["demo"], flush=True)
    result["sdxl"] = sdxl_stall()
    print(result["sdxl"], flush=True)


def demo_stall() -> dict[str, Any]:
    seconds: list[float] = []
    last = time.perf_counter()

    def after_step(do: Callable[[], None], step: int) -> None:
        nonlocal last
        do()
        now = time.perf_counter()
        seconds.append(now - last)
        last = now

    demo_run(after_step, max_train_steps=STEPS, save_steps=EVERY)
    beside = list(range(EVERY - 1, STEPS - 1, EVERY))  # the step that ends with a checkpoint, and the next
    with_one = [seconds[index + more] for index in beside for more in (0, 1)]
    plain = [seconds[index] for index in range(EVERY, STEPS) if index % EVERY not in (EVERY - 1, 0)]
    median = statistics.median(plain)
    return {
        "checkpoints": len(beside),
        "median_step_ms": round(median * 1000, 2),
        "longest_step_ms": round(max(plain) * 1000, 2),
        "median_step_with_a_checkpoint_ms": round(statistics.median(with_one) * 1000, 2),
        "longest_step_with_a_checkpoint_ms": round(max(with_one) * 1000, 2),
    }


def sdxl_layers() -> dict[str, tuple[int, int]]:
    """Return the output and input sizes of the linear layers in the transformer blocks of SDXL's UNet, by LoRA key."""
    import torch
    from diffusers import UNet2DConditionModel
    from lora_crucible.formats.architectures import ARCHITECTURES
    from lora_crucible.formats.layer_names import file_key

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
        )
    return {
        file_key(ARCHITECTURES["sdxl"], name): tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear) and "attentions" in name
    }


def sdxl_stall() -> dict[str, Any]:
    import torch
    from lora_crucible.files.tensor_tree import on_cpu
    from lora_crucible.formats.lora_file import lora_layer, to_state_dict
    from lora_crucible.formats.lora_model import LoraModel
    from lora_crucible.runs.checkpoint import Checkpoint, Checkpoints

    layers = {
        key: lora_layer(torch.randn(RANK, inputs), torch.randn(outputs, RANK), RANK)
        for key, (outputs, inputs) in sdxl_layers().items()
    }
    weights = [tensor for layer in layers.values() for tensor in layer.values() if tensor.ndim == 2]
    moments = {number: {"exp_avg": weight + 1, "exp_avg_sq": weight + 2} for number, weight in enumerate(weights)}
    best = [weight + 3 for weight in weights]
    matrix = torch.randn(512, 512)

    def foreground() -> float:
        """Return the seconds that some work in small operations, like a model's, takes."""
        started = time.perf_counter()
        for _ in range(8):
            matrix @ matrix
        return time.perf_counter() - started

    undisturbed = [foreground() for _ in range(400)]
    rows = []
    for step in range(1, 4):
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), keep=1)
            started = time.perf_counter()
            state = on_cpu({"weights": weights, "optimizer": moments, "best": best})
            files = {name: LoraModel(to_state_dict(layers, torch.float16), name, {}) for name in ("lora", "best")}
            captured = time.perf_counter()
            checkpoints.write(Checkpoint(step, state, files))
            beside = []
            while not checkpoints._writing.done():
                beside.append(foreground())
            checkpoints.wait()
            written = time.perf_counter()
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        longest = max(beside) - statistics.median(undisturbed)
        rows.append((captured - started, written - captured, longest, statistics.median(beside)))
    capture, write, longest, median = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "rank": RANK,
        "checkpoint_gb": round(size / 1e9, 3),
        "copied_while_training_waits_s": round(capture, 3),
        "written_beside_it_s": round(write, 2),
        "longest_interruption_meanwhile_s": round(longest, 3),
        "slowed_meanwhile": round(median / statistics.median(undisturbed), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"step_time": step_time, "stall": stall}
    parser.add_argument("parts", nargs="*", metavar="PART", help=" | ".join(parts))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "guard_cost.json")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown part: {', '.join(unknown)}")
    load_trainer()
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    result: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        result = json.loads(options.output.read_text(encoding="utf-8"))
    for part in options.parts or parts:
        parts[part](result.setdefault(part, {}))
        result.update(circumstances())
        save(result, options.output)


if __name__ == "__main__":
    main()
