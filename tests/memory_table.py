"""Generates the table of planned memory in docs/rented_gpu.md from the sizes of models. Run it to update the page."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "rented_gpu.md"
START, END = "<!-- memory: written by tests/memory_table.py -->\n", "<!-- end of memory -->"

RANK = 16
STATE = 16
"""Bytes per trained parameter: weight, gradient and AdamW's two moments, all in float32."""

UNETS = {"Stable Diffusion 1.5": 0.86e9, "SDXL": 2.57e9}
"""Published numbers of parameters of the UNets."""

UNET_LORA = {"Stable Diffusion 1.5": 3.2e6, "SDXL": 23.2e6}
"""Parameters of a LoRA of rank 16 on their attention layers."""

INCOMPLETE = ("sd3", "hidream")
"""Architectures of whose layers the tables do not have all sizes."""

CARDS = (8, 12, 16, 24, 32, 48, 80, 141)
"""Memory of usual cards, in GB."""

SHARE_FREE, LEAST_FREE = 0.2, 4.0
"""What a card is to have left for activations and CUDA: this share of it, and at least so many GB."""


def sizes() -> dict[str, tuple[float, float]]:
    """Return the parameters of each model's denoiser, and those of a LoRA of rank 16 on all of its linear layers."""
    from lora_crucible.formats.layer_tables.model_sizes import SIZES
    from lora_crucible.formats.layer_tables.rows import rows

    found = {name: (count, UNET_LORA[name]) for name, count in UNETS.items()}
    for architecture, models in SIZES.items():
        for model in models if architecture not in INCOMPLETE else ():
            weights = lora = 0
            for row in rows(architecture):
                if row.outputs is None or row.inputs is None:
                    continue  # norms and the like
                out, into = (
                    model.lengths.get(length, 0) if isinstance(length, str) else int(Fraction(length) * model.width)
                    for length in (row.outputs, row.inputs)
                )
                blocks = re.match(r"(.+?)\.#", row.native)
                count = model.blocks.get(blocks[1], 1) if blocks else 1
                weights += out * into * count
                lora += RANK * (out + into) * count
            found[model.name] = (weights, lora)
    return found


def table() -> str:
    """Return the Markdown table."""
    lines = [
        "| model | weights in bf16 | in fp8 | LoRA of rank 16 with AdamW | planned card, bf16 | fp8 |",
        "|---|---|---|---|---|---|",
    ]
    for name, (weights, lora) in sorted(sizes().items(), key=lambda item: item[1][0]):
        in_bf16, in_fp8, state = 2 * weights / 1e9, weights / 1e9, STATE * lora / 1e9
        cards = (f"{card(in_bf16 + state)}", f"{card(in_fp8 + state)}")
        lines.append(f"| {name} | {in_bf16:.1f} GB | {in_fp8:.1f} GB | {state:.2f} GB | {cards[0]} | {cards[1]} |")
    return "\n".join(lines) + "\n"


def card(needed: float) -> str:
    """Return the smallest usual card that leaves enough beside so many GB."""
    fitting = [size for size in CARDS if size - needed >= max(LEAST_FREE, SHARE_FREE * size)]
    return f"{fitting[0]} GB" if fitting else "several cards"


def page_with(table: str) -> str:
    """Return the text of docs/rented_gpu.md with its table replaced."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + table + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import conftest  # noqa: F401  makes lora_crucible importable

    PAGE.write_text(page_with(table()), encoding="utf-8")
