"""Writes small models with random weights as files that ComfyUI's loaders recognize.

Run by ComfyUI's Python with a folder, in which it makes flux1.safetensors (a diffusion model), clip_l.safetensors,
vae.safetensors, and sd15.safetensors, a checkpoint with all three parts.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["COMFYUI_PATH"])
FOLDER = Path(__file__).parents[3] / "trainer"


def _alias_trainer() -> None:
    spec = importlib.util.spec_from_file_location(
        "lora_crucible", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    sys.modules["lora_crucible"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main(folder: Path) -> None:
    import comfyui_imports  # noqa: F401
    import tiny_files
    from safetensors.torch import save_file

    unet = tiny_files.diffusion_model("sd15")
    flux = tiny_files.diffusion_model("flux1", context_in_dim=768, vec_in_dim=768)
    clip = tiny_files.clip_l()
    save_file(flux, folder / "flux1.safetensors")
    save_file(clip, folder / "clip_l.safetensors")
    save_file(tiny_files.vae(16), folder / "vae.safetensors")
    checkpoint = {f"model.diffusion_model.{key}": weight for key, weight in unet.items()}
    checkpoint |= {f"cond_stage_model.transformer.{key}": weight for key, weight in clip.items()}
    checkpoint |= {f"first_stage_model.{key}": weight for key, weight in tiny_files.vae(4).items()}
    save_file(checkpoint, folder / "sd15.safetensors")


if __name__ == "__main__":
    _alias_trainer()
    main(Path(sys.argv[1]))
