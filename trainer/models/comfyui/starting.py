"""ComfyUI in a process that is not its server: imported for its loaders, its sampler and its model folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from ...errors import CrucibleError


def start_comfyui(comfyui: Path) -> None:
    """Import ComfyUI as its `main.py` would, but without a server, custom nodes and its own command line.

    It computes on the card of this process, which is that of LOCAL_RANK if several processes train together, or on the
    CPU if there is no card. The model folders of its extra_model_paths.yaml are added to its own.

    Args:
        comfyui: the folder of ComfyUI.

    Raises:
        CrucibleError: ComfyUI cannot be imported into this Python.
    """
    if str(comfyui) not in sys.path:
        sys.path.insert(0, str(comfyui))
    try:
        # It reads no arguments of the process unless `comfy.options` is told to.
        from comfy.cli_args import args

        args.cpu = not _choose_card()
        import comfy.model_management  # noqa: F401
        import folder_paths
        from utils.extra_config import load_extra_path_config
    except Exception as error:
        raise CrucibleError(
            f"The ComfyUI in {comfyui} cannot be imported by {sys.executable} ({type(error).__name__}: {error}), so "
            "its loaders cannot open the base model. Check that ComfyUI itself starts with this Python; if it has "
            "another one, set COMFYUI_PYTHON to it. To do without ComfyUI, set loader: diffusers."
        ) from error
    extra = comfyui / "extra_model_paths.yaml"
    if extra.is_file():
        load_extra_path_config(str(extra))
    saved = Path(folder_paths.get_output_directory())
    for kind in ("checkpoints", "diffusion_models", "text_encoders", "vae"):
        folder = saved / ("clip" if kind == "text_encoders" else kind)
        folder_paths.add_model_folder_path(kind, str(folder))


def _choose_card() -> bool:
    """Make the card of this process the current one, and return whether there is any."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    for kind in (torch.cuda, torch.xpu):
        if kind.is_available():
            kind.set_device(rank % kind.device_count())
            return True
    return torch.backends.mps.is_available()
