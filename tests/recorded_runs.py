"""Twelve short runs whose LoRAs are known, bit for bit, from recorded_runs.json.

`python tests/recorded_runs.py diffusers` prints the hashes of the LoRAs of all runs, and with `--record` writes them
down; `comfyui` does the same with ComfyUI's own Python and COMFYUI_PATH. Record only after a change that is meant to
change results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

# The same instructions on every x86-64 processor: otherwise each has its own last digits.
INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
RECORD = Path(__file__).with_suffix(".json")

COMMON = {"max_train_steps": 3, "batch_size": 2, "sample_every_n_steps": 99, "sample_steps": 1, "lora_rank": 2}
RUNS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora_bf16": {"mixed_precision": "bf16", "save_precision": "fp32"},
    "rslora_dropout_accumulation": {"algorithm": "rslora", "lora_dropout": 0.2, "gradient_accumulation_steps": 2},
    "dora_checkpointing": {"algorithm": "dora", "gradient_checkpointing": True},
    "dora_bf16_dropout": {"algorithm": "dora", "lora_dropout": 0.2, "mixed_precision": "bf16"},
    "loha_adafactor": {"algorithm": "loha", "optimizer": "adafactor"},
    "lokr_convolutions": {"algorithm": "lokr", "target_modules": "linear_and_convolution"},
    "text_encoder": {"train_text_encoder": True, "lora_dropout": 0.1},
    "text_encoder_checkpointing_bf16": {
        "train_text_encoder": True,
        "gradient_checkpointing": True,
        "mixed_precision": "bf16",
    },
    "ema_cosine": {"ema_decay": 0.9, "lr_scheduler": "cosine", "lr_warmup_steps": 1},
    "weighted_loss": {
        "loss_weighting": "min_snr",
        "loss_type": "huber",
        "noise_offset": 0.05,
        "caption_dropout_rate": 0.3,
        "gradient_accumulation_steps": 2,
    },
    "patterns_lora_plus": {"layer_patterns": "attn2.to_k rank=4 alpha=2\nattn1.to_q", "loraplus_ratio": 4.0},
}


def versions(base_model_kind: str) -> dict[str, str]:
    """Return what the last digits of results depend on: packages and, with ComfyUI's build of torch, the processor."""
    found = {name: version(name) for name in ("torch", "diffusers", "peft", "transformers", "numpy", "Pillow")}
    return found | ({"processor": processor()} if base_model_kind == "comfyui" else {})


def processor() -> str:
    """Return the processor's family, model and kinds of matrix instructions, as far as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    kinds = [kind for kind in ("avx2", "avx512f", "amx_tile") if kind in facts.get("flags", "").split()]
    return " ".join([facts.get("vendor_id", ""), facts.get("cpu family", ""), facts.get("model", ""), *kinds])


def tensors_hash(path: Path) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of a safetensors file's tensors."""
    import torch
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def loras(base_model_kind: str) -> dict[str, str]:
    """Train each run and return the hash of its LoRA, by the run's name."""
    import conftest  # which gives the trainer its installed name
    import torch

    assert conftest.ROOT
    torch.set_num_threads(1)
    from lora_crucible.config import DataSettings, parse_config
    from lora_crucible.data.images.load import load_dataset
    from lora_crucible.training.resume import train_or_resume

    if base_model_kind == "comfyui":
        base_model = demo_in_comfyui()
    else:
        from lora_crucible.models.diffusers.model import DiffusersBaseModel

        base_model = DiffusersBaseModel("demo")
    dataset = load_dataset(DataSettings(train_data_dir="demo"))
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, settings in RUNS.items():
            config = parse_config({**COMMON, **settings, "output_name": name})
            run = train_or_resume(base_model, dataset, config, Path(folder, "loras"), Path(folder, "runs"))
            results[name] = tensors_hash(run.files.lora)
    return results


def demo_in_comfyui() -> Any:
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args
    import torch

    assert comfy.cli_args.args.cpu
    sys.argv = arguments
    from lora_crucible.models.comfyui.demo import load_demo_clip, load_demo_model, load_demo_vae
    from lora_crucible.models.comfyui.model import ComfyUIBaseModel

    with torch.inference_mode():
        return ComfyUIBaseModel(load_demo_model(), load_demo_clip(), load_demo_vae())


def recorded(base_model_kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found.get(base_model_kind, {"versions": {}, "loras": {}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_model", choices=["diffusers", "comfyui"])
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in INSTRUCTIONS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **INSTRUCTIONS})
    found = {"versions": versions(arguments.base_model), "loras": loras(arguments.base_model)}
    if arguments.record:
        known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        RECORD.write_text(json.dumps(known | {arguments.base_model: found}, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
