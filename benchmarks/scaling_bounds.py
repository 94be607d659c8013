"""Compute, without a card, what bounds a run on 8 cards and on 8 machines with 8 cards each.

    <python with the pack's standalone packages> benchmarks/scaling_bounds.py [--output FILE.json]

Nothing is measured. The models are built without weights from their published configurations. Their layers are chosen
by the trainer's own code. The operations of a forward pass are counted by torch for images, and by their matrix
products for texts. docs/scaling.md has the table and
what follows from it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import circumstances, load_trainer, save

RANK = 16
TOKENS = 1024
"""The tokens of a row of the language model."""

LINKS = {
    "NVLink, 300 GB/s": 300e9,
    "PCIe 4.0 x16, 25 GB/s": 25e9,
    "100 Gbit/s network": 12.5e9,
    "10 Gbit/s network": 1.25e9,
    "1 Gbit/s network": 0.125e9,
}
"""Bytes per second in each direction, as the makers give them."""

CARDS = {"A100": 312e12, "H100": 989e12}
"""Operations per second in bf16, as the maker gives them."""

REACHED = 0.4
"""The share of them that training is assumed to reach."""

SPREAD = 0.02
"""The standard deviation of the time of a step that is assumed, as a share of it."""

SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
LLAMA = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}


def sdxl() -> tuple[Any, int, int]:
    """Return the UNet, the operations for an image of 1024 x 1024 pixels, and the bytes of its cached inputs."""
    import torch
    from diffusers import UNet2DConditionModel

    def forward(model: Any) -> Any:
        added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        return model(torch.empty(1, 4, 128, 128), torch.empty(1), torch.empty(1, 77, 2048), added_cond_kwargs=added)

    model = UNet2DConditionModel(**SDXL)
    return model, counted(model, forward), 4 * (4 * 128 * 128 + 77 * 2048 + 1280)


def flux1() -> tuple[Any, int, int]:
    """Return the transformer, the operations for an image of 1024 x 1024 pixels, and the bytes of its cached inputs."""
    import torch
    from diffusers import FluxTransformer2DModel

    def forward(model: Any) -> Any:
        return model(
            hidden_states=torch.empty(1, 4096, 64),
            encoder_hidden_states=torch.empty(1, 512, 4096),
            pooled_projections=torch.empty(1, 768),
            timestep=torch.empty(1),
            img_ids=torch.empty(4096, 3),
            txt_ids=torch.empty(512, 3),
            guidance=torch.empty(1),
        )

    model = FluxTransformer2DModel(guidance_embeds=True)
    return model, counted(model, forward), 4 * (16 * 128 * 128 + 512 * 4096 + 768)


def language_8b() -> tuple[Any, int, int]:
    """Return a language model of 8 billion parameters, the operations for a row of tokens, and the bytes of these."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    numbers = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    # Each token is multiplied with every matrix, and with half of all tokens twice in each layer.
    operations = 2 * TOKENS * numbers + 2 * TOKENS**2 * LLAMA["hidden_size"] * LLAMA["num_hidden_layers"]
    return model, operations, 5 * TOKENS


def counted(model: Any, forward: Callable[[Any], Any]) -> int:
    """Return the operations of a forward pass of a model without weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(model)
    return int(counter.get_total_flops())


MODELS: dict[str, tuple[Callable[[], tuple[Any, int, int]], str]] = {
    "SDXL, 1024 px": (sdxl, "attention_and_feed_forward"),
    "Flux.1, 1024 px": (flux1, "attention_and_feed_forward"),
    "8B language model, 1,024 tokens": (language_8b, "linear"),
}


def facts(make: Callable[[], tuple[Any, int, int]], target_modules: str) -> dict[str, Any]:
    """Return the numbers of a model that the bounds depend on."""
    import torch
    from lora_crucible.adapters.targets import select_layers
    from lora_crucible.memory.plan import STATE_BYTES

    with torch.device("meta"):
        model, operations, row_bytes = make()
        chosen = [path for path in select_layers(model.named_modules(), target_modules) if "lm_head" not in path]
        sizes = [model.get_submodule(path).weight.shape for path in chosen]
    # A LoRA of a layer from m to n numbers has r (m + n) parameters.
    trained = sum(RANK * (size[0] + size[1]) for size in sizes)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": len(chosen),
        "trained": trained,
        "gradient_bytes": 4 * trained,
        # Weights, the best weights, AdamW's moments, and the current and the best LoRA in fp16.
        "checkpoint_bytes": int(trained * (4 + 4 + STATE_BYTES["adamw"] + 2 * 2)),
        "row_bytes": row_bytes,
        # Forward, and the gradients of what goes through the frozen layers: about as much again. With gradient
        # checkpointing the forward pass is done twice.
        "operations_per_row": 3 * operations,
    }


def bounds(model: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds that a step takes and what is added to them, with one row for each card."""
    found: dict[str, Any] = {"compute": {}, "exchange": {}, "added": {}}
    for card, rate in CARDS.items():
        found["compute"][card] = model["operations_per_row"] / (rate * REACHED)
    for link, rate in LINKS.items():
        # Each takes part in a ring: it sends and receives 2 (n - 1) / n of the bytes, at most twice.
        found["exchange"][link] = 2 * model["gradient_bytes"] / rate
        found["added"][link] = {card: found["exchange"][link] / seconds for card, seconds in found["compute"].items()}
    return found


def slowest(count: int) -> float:
    """Return the mean of the largest of so many standard normal numbers, by numerical integration."""
    normal, width = statistics.NormalDist(), 0.001
    places = [-6 + width * number for number in range(int(12 / width))]
    return sum(place * count * normal.cdf(place) ** (count - 1) * normal.pdf(place) * width for place in places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    load_trainer()
    assumed = {"rank": RANK, "reached": REACHED, "spread": SPREAD, "links": LINKS, "cards": CARDS}
    result: dict[str, Any] = circumstances() | {"assumed": assumed, "models": {}}
    for name, (make, target_modules) in MODELS.items():
        model = facts(make, target_modules)
        result["models"][name] = model | bounds(model)
        print(f"{name}: {model['trained']:,} trained parameters in {model['layers']} layers; a step with one row:")
        for card, seconds in result["models"][name]["compute"].items():
            print(f"  {card}: {seconds:.2f} s; the exchange adds", end="")
            shares = result["models"][name]["added"]
            print(";".join(f" {shares[link][card]:.1%} ({link})" for link in LINKS))
    result["slowest"] = {str(count): SPREAD * slowest(count) for count in (2, 8, 64)}
    print(f"Waiting for the slowest of 2, 8 and 64: {', '.join(f'{one:.1%}' for one in result['slowest'].values())}")
    save(result, options.output)


if __name__ == "__main__":
    main()
