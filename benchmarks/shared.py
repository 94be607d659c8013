"""Functions shared by the benchmarks: importing this checkout's trainer, and recording the circumstances."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def load_trainer() -> None:
    """Import the trainer of this checkout under its installed name."""
    folder = ROOT / "trainer"
    spec = importlib.util.spec_from_file_location(
        "lora_crucible", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["lora_crucible"] = module
    spec.loader.exec_module(module)


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def circumstances() -> dict[str, Any]:
    """Return the date, hardware and versions that the results depend on."""
    import torch

    return {
        "date": now(),
        "hardware": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.platform()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers", "peft", "safetensors")},
    }


def save(result: dict[str, Any], path: Path | None) -> None:
    """Save results as JSON, if there is a path; long benchmarks do so after every row, so that Ctrl-C loses little."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
