"""Generates the table in docs/models.md from the table of architectures. Run this file to update the page."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
START, END = "<!-- models: written by tests/models_table.py -->\n", "<!-- end of models -->"
NAMES = {"native": "ComfyUI layer names", "diffusers": "diffusers layer names", "original": "original layer names"}


def table() -> str:
    """Return the Markdown table of all architectures of image and video models that have a name of their own."""
    from lora_crucible.formats.architectures import ARCHITECTURES
    from lora_crucible.models.diffusers.families import FAMILIES

    through_diffusers = {id: family for family in FAMILIES.values() for id in family.architectures}
    lines = [
        "| model | LoRA file format | file loads in | resolution | trained through diffusers |",
        "|---|---|---|---|---|",
    ]
    for row in ARCHITECTURES.values():
        if row.id in ("demo", "language", "unknown"):
            continue
        form = f"kohya, {NAMES[row.naming]}" if row.is_kohya else f"`{row.prefix}…`, {NAMES[row.naming]}"
        readers = "ComfyUI, diffusers" if row.diffusers_loader else "ComfyUI"
        family = through_diffusers.get(row.id)
        pipeline = f"`{family.pipeline}`" if family else ""
        lines.append(f"| {row.name} | {form} | {readers} | {row.native_resolution} | {pipeline} |")
    return "\n".join(lines) + "\n"


def page_with(table: str) -> str:
    """Return the text of docs/models.md with its table replaced."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + table + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import conftest  # noqa: F401  makes lora_crucible importable

    PAGE.write_text(page_with(table()), encoding="utf-8")
