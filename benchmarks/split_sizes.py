"""Computes what a process holds of a base model that is split over several processes, for published models.

    .venv/bin/python benchmarks/split_sizes.py

Makes the layers of each model without weights, and counts. Needs no card; writes results/split_sizes.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from lora_crucible.models.splitting import blocks_of, split_parameters

PROCESSES = (1, 2, 4, 8)
BYTES = 2
"""The bytes of a parameter in bfloat16."""

LLAMA_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def models() -> dict[str, tuple[Any, Any]]:
    """Return models on the meta device with the parts of them that call all blocks."""
    with torch.device("meta"):
        flux = diffusers.FluxTransformer2DModel(guidance_embeds=True)
        qwen = diffusers.QwenImageTransformer2DModel()
        llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA_70B))
    return {"Flux.1": (flux, flux), "Qwen-Image": (qwen, qwen), "Llama 3.1 70B": (llama, llama.model)}


def main() -> None:
    results = {}
    for name, (model, root) in models().items():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks_of(root)]
        results[name] = {
            "parameters": parameters,
            "not in blocks": parameters - sum(blocks),
            "blocks": len(blocks),
            "largest block": max(blocks),
            "bytes per process": {
                count: BYTES * (parameters if count == 1 else split_parameters(root, parameters, count))
                for count in PROCESSES
            },
        }
        print(name, results[name])
    path = Path(__file__).parent / "results" / "split_sizes.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
