"""A base model opened from files by ComfyUI's own loaders, without a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
import torch

from ...errors import CrucibleError
from ...formats.header import ENDINGS, read_header
from ...messages.suggestions import nearest_names
from ...messages.wording import listed
from . import naming
from .demo import load_demo_clip, load_demo_model, load_demo_vae
from .model import ComfyUIBaseModel

REASON_SHOWN = 300
"""The most characters of ComfyUI's own message that a message quotes."""

CLIP_TYPES = {
    "sd15": "stable_diffusion",
    "sd2": "stable_diffusion",
    "sd2_v": "stable_diffusion",
    "sdxl": "stable_diffusion",
    "sd3": "sd3",
    "flux1": "flux",
    "flux2": "flux2",
    "chroma": "chroma",
    "lumina2": "lumina2",
    "z_image": "lumina2",
    "qwen_image": "qwen_image",
    "pixart_alpha": "pixart",
    "pixart_sigma": "pixart",
    "hunyuan_dit": "hunyuan_dit",
    "hidream": "hidream",
    "cosmos_predict2": "cosmos",
    "anima": "stable_diffusion",
    "wan": "wan",
    "hunyuan_video": "hunyuan_video",
    "ltxv": "ltxv",
}
"""The type that ComfyUI's loaders of text encoders are set to for each architecture."""


def open_files(
    base_model: str,
    text_encoders: Sequence[str],
    clip_type: str | None,
    vae: str | None,
    check_interrupt: Callable[[], None],
    say: Callable[[str], None],
) -> ComfyUIBaseModel:
    """Open a base model as ComfyUI's loader nodes do.

    A file that is not where its path says is looked for in ComfyUI's model folders.

    Args:
        base_model: a checkpoint, a diffusion model's file, or "demo".
        text_encoders: the files of the text encoders; empty for those in the checkpoint.
        clip_type: what the text encoders are for, as `CLIPType` in ComfyUI calls it; None to tell it from the model.
        vae: the file of the VAE; None for that in the checkpoint.
        check_interrupt: a function called before each batch and each sample; it may raise to stop.
        say: a function that is given sentences for the user: where files were found, and what was guessed.

    Raises:
        CrucibleError: a file is missing or no model that ComfyUI knows, or the text encoders or the VAE are missing.
    """
    # As in a node, whose tensors ComfyUI makes in inference mode.
    with torch.inference_mode():
        if base_model == "demo":
            return ComfyUIBaseModel(load_demo_model(), load_demo_clip(), load_demo_vae(), check_interrupt)
        path = _located(base_model, "base_model", ("checkpoints", "diffusion_models"), say)
        encoder_paths = [_located(name, "text_encoders", ("text_encoders",), say) for name in text_encoders]
        vae_path = None if vae is None else _located(vae, "vae", ("vae",), say)
        model, clip, own_vae = _model(path, with_clip=not encoder_paths, with_vae=vae_path is None)
        if encoder_paths:
            clip = _clip(encoder_paths, _clip_type(clip_type, model, say))
        elif clip_type is not None:
            raise CrucibleError(
                f"clip_type is {clip_type}, but no text_encoders are set, so it would be ignored. Add the files of the "
                "text encoders, or remove clip_type: a checkpoint knows what its own text encoders are for."
            )
        found_vae = own_vae if vae_path is None else _vae(vae_path)
        _require_parts(path, clip, found_vae)
        return ComfyUIBaseModel(model, clip, found_vae, check_interrupt)


def _located(written: str, setting: str, kinds: Sequence[str], say: Callable[[str], None]) -> Path:
    """Return the file that a setting names, or that ComfyUI has under as much of its path as possible."""
    if PurePath(written).suffix.lower() not in ENDINGS:
        raise CrucibleError(
            f"{setting} is {written}, which is not a .safetensors file. Other formats (.ckpt, .pt, .bin, .gguf) can "
            "run code when they are opened or need custom nodes, so they are not opened here. Use the model's "
            ".safetensors file, or write one with Save Checkpoint in a graph."
        )
    path = Path(written).expanduser()
    if path.is_file():
        return path
    parts = PurePath(written).parts
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        for kind in kinds:
            # An absolute path would be taken as it is.
            found = None if PurePath(name).is_absolute() else folder_paths.get_full_path(kind, name)
            if found is not None:
                say(f"{setting} = {written} is not a file here; found in ComfyUI's folders: {found}")
                return Path(found)
    folders = [folder for kind in kinds for folder in folder_paths.get_folder_paths(kind)]
    names = [name for kind in kinds for name in folder_paths.get_filename_list(kind)]
    near = "".join(f"ComfyUI has {name}. " for name in nearest_names(PurePath(written).name, names))
    raise CrucibleError(
        f"{setting} is {written}, but there is no such file at {path.absolute()}, nor in ComfyUI's folders "
        f"({listed(folders)}), so there is nothing to train on. {near}Correct the path, or put the file there."
    )


def _model(path: Path, *, with_clip: bool, with_vae: bool) -> tuple[Any, Any, Any]:
    """Load the MODEL in a file, and the CLIP and the VAE of a checkpoint unless others take their place."""
    options = {
        "output_clip": with_clip,
        "output_vae": with_vae,
        "embedding_directory": folder_paths.get_folder_paths("embeddings"),
    }
    try:
        if _is_checkpoint(path):
            model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(path), **options)
        else:
            model, clip, vae = comfy.sd.load_diffusion_model(str(path)), None, None
    except Exception as error:
        raise _not_opened(path, "base_model", "a model that ComfyUI knows", error) from error
    return model, clip, vae


def _is_checkpoint(path: Path) -> bool:
    """Return whether a file has its diffusion model under the prefix of checkpoints, with or without other models."""
    return any(key.startswith("model.diffusion_model.") for key in read_header(path).shapes)


def _clip_type(written: str | None, model: Any, say: Callable[[str], None]) -> Any:
    """Return the type of the text encoders: the one that was written, or that of the model's architecture."""
    types = comfy.sd.CLIPType
    if written is not None:
        found = getattr(types, written.strip().upper(), None)
        if found is None:
            names = [one.name.lower() for one in types]
            near = "".join(f" Did you mean {name}?" for name in nearest_names(written, names))
            raise CrucibleError(
                f"clip_type is {written}, which this ComfyUI does not know, so the text encoders cannot be opened. It "
                f"knows {', '.join(names)}.{near}"
            )
        return found
    architecture = naming.architecture_of(model.model)
    name = CLIP_TYPES.get(architecture.id)
    if name is None:
        raise CrucibleError(
            f"The base model is {architecture.name} ({type(model.model).__name__}), for which it is not known what "
            "ComfyUI's text encoder loaders are to be set to. Write clip_type as the type in Load CLIP of a graph for "
            "this model."
        )
    say(f"clip_type is not set; {name} is taken, which suits {architecture.name}.")
    return types[name.upper()]


def _clip(paths: Sequence[Path], clip_type: Any) -> Any:
    try:
        return comfy.sd.load_clip(
            ckpt_paths=[str(path) for path in paths],
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            clip_type=clip_type,
        )
    except Exception as error:
        names = listed([path.name for path in paths])
        raise _not_opened(names, "text_encoders", f"the text encoders of {clip_type.name.lower()}", error) from error


def _vae(path: Path) -> Any:
    try:
        weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
        vae = comfy.sd.VAE(sd=weights, metadata=metadata)
        vae.throw_exception_if_invalid()
    except Exception as error:
        raise _not_opened(path, "vae", "a VAE that ComfyUI knows", error) from error
    return vae


def _not_opened(file: Path | str, setting: str, expected: str, error: Exception) -> CrucibleError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return CrucibleError(
        f"{setting} names {file}, which ComfyUI cannot open as {expected} ({reason[:REASON_SHOWN]}), so it cannot be "
        "trained on. Check that the file is whole, that it is what the setting asks for, and that ComfyUI itself loads "
        "it; a model that is newer than this ComfyUI needs a newer one."
    )


def _require_parts(path: Path, clip: Any, vae: Any) -> None:
    """Check that there are text encoders and a VAE.

    Raises:
        CrucibleError: one is missing; the message says which setting to add.
    """
    missing = []
    if clip is None:
        missing.append(("no text encoder", "text_encoders with the files of its text encoders"))
    # For a file without a VAE, ComfyUI's loader returns an empty one.
    if getattr(vae, "first_stage_model", None) is None:
        missing.append(("no VAE", "vae with the file of its VAE"))
    if missing:
        raise CrucibleError(
            f"base_model = {path} has {' and '.join(what for what, _ in missing)}, and without them captions and "
            f"images cannot be encoded. Add {' and '.join(add for _, add in missing)}: paths, or names of files in "
            "ComfyUI's model folders."
        )
