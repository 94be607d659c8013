"""The worker processes of vs_native.py. Each gets one job as JSON on the command line and writes the result as JSON."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import logging
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from unets import CONTEXT_TOKENS, SIZES, floor, load_diffusers, load_native, load_text_encoder, make_weights

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 8
LEARNING_RATE = 1e-4
SEED = 0
CAPTION = "a photo of a red house beside a lake in the mountains, early morning, mist on the water"


def facts(sizes: list[tuple[str, int]]) -> dict[str, Any]:
    """Return the versions, the machine's matrix rate, and the operations that one image needs at least.

    Args:
        sizes: pairs of model name and image side in pixels.
    """
    import comfyui_version

    names = ("torch", "numpy", "peft", "diffusers", "safetensors")
    return {
        "versions": {
            "python": platform.python_version(),
            "comfyui": comfyui_version.__version__,
            **{name: importlib.metadata.version(name) for name in names},
            "lora_crucible": trainer().__version__,
        },
        "matrix_gflop_per_second": round(matrix_rate(), 1),
        "gflop_per_image": {f"{model} {pixels}": round(floor(model, pixels), 3) for model, pixels in sizes},
    }


def matrix_rate(size: int = 4096, repeats: int = 8) -> float:
    """Return the GFLOP/s of a large float32 matrix product: the best of several, as other load only slows it down."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def trainer() -> Any:
    """Import this checkout's trainer under its installed name."""
    if "lora_crucible" not in sys.modules:
        folder = ROOT / "trainer"
        spec = importlib.util.spec_from_file_location(
            "lora_crucible", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["lora_crucible"] = module
        spec.loader.exec_module(module)
    return sys.modules["lora_crucible"]


# The data


def make_latents(pixels: int) -> Tensor:
    return torch.randn(IMAGES, 4, pixels // 8, pixels // 8, generator=torch.Generator().manual_seed(1))


def make_contexts(model: str) -> Tensor:
    shape = IMAGES, 1, CONTEXT_TOKENS, SIZES[model]["cross_attention_dim"]
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


# Measuring


class Stopwatch:
    """Measures the time and memory of a training.

    `ready` must be called just before the training starts, and `step` after every optimizer step.
    """

    def ready(self) -> None:
        gc.collect()
        self.peak_loading_gb = peak_gb()
        try:
            # On Linux, this resets the peak memory use.
            Path("/proc/self/clear_refs").write_text("5")
            self.before_gb = peak_gb()
        except OSError:
            self.before_gb = self.peak_loading_gb
        self.times = [time.perf_counter()]

    def step(self, *_: Any) -> None:
        self.times.append(time.perf_counter())

    def figures(self, warm_up: int) -> dict[str, Any]:
        seconds = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        timed = seconds[warm_up:]
        return {
            "seconds_per_step": round(statistics.median(timed), 4),
            "fastest_step": round(min(timed), 4),
            "slowest_step": round(max(timed), 4),
            "timed_steps": len(timed),
            "start_up_seconds": round(seconds[0], 2),
            "before_training_gb": self.before_gb,
            "peak_training_gb": peak_gb(),
            "peak_process_gb": max(peak_gb(), self.peak_loading_gb),
        }


def peak_gb() -> float:
    """Return the peak resident memory of the process in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def measure(row: dict[str, Any], rank: int, weights: str, warm_up: int, steps: int) -> dict[str, Any]:
    contestant: Callable[..., dict[str, Any]] = CONTESTANTS[row["contestant"]]
    watch = Stopwatch()
    found = contestant(row, rank, weights, warm_up + steps, watch)
    return {**found, **watch.figures(warm_up)}


# The contestants. Each builds its model, calls `watch.ready()`, trains, and calls `watch.step()` after every step.


def core(row: dict[str, Any], rank: int, weights: str, steps: int, watch: Stopwatch) -> dict[str, Any]:
    """Train with ComfyUI's built-in Train LoRA node, called as by ComfyUI's executor."""
    settings = dict(row["settings"])
    start_comfyui(pytorch_attention=settings.pop("pytorch_attention", False))
    import comfy_extras.nodes_train

    class Progress:
        """A replacement for the progress bar, which the node updates after every step."""

        def __init__(self, total: int) -> None:
            pass

        def update(self, value: int) -> None:
            watch.step()

    comfy_extras.nodes_train.ProgressBar = Progress
    arguments = {
        "batch_size": row["batch"],
        "grad_accumulation_steps": 1,
        "steps": steps,
        "learning_rate": LEARNING_RATE,
        "rank": rank,
        "optimizer": "AdamW",
        "loss_function": "MSE",
        "seed": SEED,
        "training_dtype": "fp32",
        "lora_dtype": "fp32",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": row["gradient_checkpointing"],
        "checkpoint_depth": 1,
        "offloading": False,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": False,
        **settings,
    }
    with torch.inference_mode():
        model = load_native(row["model"], weights)
        latents = [{"samples": latent.unsqueeze(0)} for latent in make_latents(row["pixels"])]
        positive = [[[context, {}]] for context in make_contexts(row["model"])]
        watch.ready()
        output = comfy_extras.nodes_train.TrainLoraNode.execute(
            model=[model],
            latents=latents,
            positive=positive,
            **{name: [value] for name, value in arguments.items()},
        )
    lora = output.args[0]
    return {
        "adapted_layers": sum(name.endswith("lora_up.weight") for name in lora),
        "trained_parameters": sum(weight.numel() for weight in lora.values()),
    }


def crucible(row: dict[str, Any], rank: int, weights: str, steps: int, watch: Stopwatch) -> dict[str, Any]:
    """Train with this pack's training loop on its ComfyUI base model."""
    start_comfyui()
    trainer()
    from lora_crucible.adapters.spec import AdapterSpec
    from lora_crucible.config import TrainingConfig
    from lora_crucible.data.batch_sampler import BatchSampler
    from lora_crucible.memory.step_memory import StepMemory
    from lora_crucible.models.comfyui.model import ComfyUIBaseModel
    from lora_crucible.models.diffusion.inputs import Caption, Inputs, Latent
    from lora_crucible.models.examples import CachedExample
    from lora_crucible.monitoring.anomalies import AnomalyDetector
    from lora_crucible.optim.engine import Engine
    from lora_crucible.optim.optimizers import ParameterGroup
    from lora_crucible.optim.stepper import OptimizerStepper
    from lora_crucible.training.loop import TrainingLoop

    config = TrainingConfig(
        max_train_steps=steps,
        lr_scheduler="cosine",
        lr_warmup_steps=0,
        learning_rate=LEARNING_RATE,
        adam_beta1=0.9,
        adam_beta2=0.999,
        batch_size=row["batch"],
        gradient_checkpointing=row["gradient_checkpointing"],
        memory="fixed",
        seed=SEED,
    )
    with torch.inference_mode():
        model = load_native(row["model"], weights)
        latents, contexts = make_latents(row["pixels"]), make_contexts(row["model"])
        watch.ready()
        not_needed = SimpleNamespace(first_stage_model=object())  # the inputs are already encoded
        with_text = row["settings"].get("text_encoder", False)
        clip = load_text_encoder() if with_text else not_needed
        base_model = ComfyUIBaseModel(model, clip, vae=not_needed)
        spec = AdapterSpec(rank=rank, alpha=rank, dropout=0.0, target_modules=row["layers"], **row["settings"])
        with base_model.session("fp32"):
            samples = []
            for latent, context in zip(latents, contexts, strict=True):
                scaled = model.model.process_latent_in(latent).clone()
                caption = Caption(CAPTION, partial(list, [[context.clone(), {}]]))
                inputs = Inputs((partial(Latent, scaled),), (caption,))
                samples.append(CachedExample("random", tuple(scaled.shape), inputs))
            order = BatchSampler([sample.group for sample in samples], row["batch"], 1, SEED)
            with base_model.attached(spec, row["gradient_checkpointing"]) as adapters:
                adapters.initialise(SEED)
                parameters = adapters.parameters()
                groups = [ParameterGroup("model", parameters, config.learning_rate)]
                optimization = OptimizerStepper(groups, config, Engine(torch.device("cpu"), torch.float32))
                anomalies = AnomalyDetector(config, "fp32", lambda: 1.0, "image")
                memory = StepMemory(base_model, samples, order, config)
                loop = TrainingLoop(
                    base_model.losses,
                    optimization,
                    samples,
                    order,
                    config,
                    memory,
                    base_model.memory,
                    anomalies,
                    fail,
                    watch.step,
                )
                with memory.watched(optimization):
                    loop.run(0)
                return {"adapted_layers": len(adapters), "trained_parameters": count(parameters)}


def fail() -> int:
    raise RuntimeError("the loss is not finite, or the optimizer ran out of memory")


def diffusers(row: dict[str, Any], rank: int, weights: str, steps: int, watch: Stopwatch) -> dict[str, Any]:
    """Train with the loop of diffusers' own LoRA example, reduced to the training itself."""
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig

    targets = {
        "attention": ["to_q", "to_k", "to_v", "to_out.0"],
        "attention_and_feed_forward": ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"],
    }
    unet = load_diffusers(row["model"], weights)
    latents, contexts = make_latents(row["pixels"]), make_contexts(row["model"])

    watch.ready()
    unet.requires_grad_(False)
    every = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets.get(row["layers"], every)))
    if row["gradient_checkpointing"]:
        unet.enable_gradient_checkpointing()
    unet.train()
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    learning_rates = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=steps)
    for _ in range(steps):
        picked = torch.randperm(IMAGES)[: row["batch"]]
        latent, context = latents[picked], contexts[picked, 0]
        noise = torch.randn_like(latent)
        timesteps = torch.randint(0, 1000, (len(picked),))
        prediction = unet(schedule.add_noise(latent, noise, timesteps), timesteps, context).sample
        loss = nn.functional.mse_loss(prediction.float(), noise.float())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        learning_rates.step()
        optimizer.zero_grad()
        loss.item()
        watch.step()
    return {"adapted_layers": len(parameters) // 2, "trained_parameters": count(parameters)}


CONTESTANTS = {"core": core, "crucible": crucible, "diffusers": diffusers}


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def start_comfyui(pytorch_attention: bool = False) -> None:
    """Set ComfyUI's options as with `--cpu`, and optionally `--use-pytorch-cross-attention`."""
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = pytorch_attention


JOBS: dict[str, Callable[..., Any]] = {"facts": facts, "make_weights": make_weights, "measure": measure}


def main() -> None:
    request = json.loads(sys.argv[1])
    sys.path.insert(0, request.pop("comfyui"))
    sys.argv = sys.argv[:1]
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(request.pop("threads"))
    answer = Path(request.pop("answer"))
    answer.write_text(json.dumps(JOBS[request.pop("job")](**request)), encoding="utf-8")


if __name__ == "__main__":
    main()
