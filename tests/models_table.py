"""The table of docs/models.md, from the rows of the format table. Run it to write the table anew."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
START, END = "<!-- models: written by tests/models_table.py -->\n", "<!-- end of models -->"
NAMES = {"native": "ComfyUI's names", "diffusers": "diffusers' names", "original": "the original code's names"}


def table() -> str:
    from lora_crucible.formats.architectures import ARCHITECTURES

    lines = ["| model | LoRA file | loads in | resolution |", "|---|---|---|---|"]
    for row in ARCHITECTURES.values():
        if row.id in ("demo", "unknown"):
            continue
        form = f"kohya, {NAMES[row.naming]}" if row.is_kohya else f"`{row.prefix}…`, {NAMES[row.naming]}"
        readers = "ComfyUI, diffusers" if row.diffusers_loader else "ComfyUI"
        lines.append(f"| {row.name} | {form} | {readers} | {row.native_resolution} |")
    return "\n".join(lines) + "\n"


def page_with(table: str) -> str:
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + table + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import conftest  # noqa: F401  puts the trainer under its name

    PAGE.write_text(page_with(table()), encoding="utf-8")
