"""A base model in a single .safetensors file, opened by diffusers' own loaders.

The file has the weights. diffusers also needs the configs of all parts and the tokenizers, which are small and the same
for all models of a kind; they are looked for beside the file and where models from the hub are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.loaders import single_file_utils

from ...errors import CrucibleError
from ...files.hub import DownloadProgress
from ...files.hub_models import HubModels, find_model
from ...formats.foreign import file_kind
from ...formats.header import ENDINGS, read_header
from ...formats.identify import candidates_of_checkpoint
from ...messages.wording import listed
from .families import FAMILIES, Family
from .folder import DiffusersFolder, read_folder
from .pipeline_files import INDEX, is_small_file, variant_of

log = logging.getLogger(__name__)

PIPELINES = {
    id: family.pipeline
    for family in FAMILIES.values()
    for id in family.architectures
    if hasattr(getattr(diffusers, family.pipeline, None), "from_single_file")
}
"""The pipelines that diffusers loads from a single file, by the architecture's id."""

_OTHER_KINDS = {
    ".ckpt": "a PyTorch pickle",
    ".pt": "a PyTorch pickle",
    ".pth": "a PyTorch pickle",
    ".bin": "a PyTorch pickle or a GGML file",
    ".gguf": "a GGUF file, whose weights are mostly rounded to few bits",
    ".ggml": "a GGML file, whose weights are mostly rounded to few bits",
}
_PREFIXES = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.", "text_encoders."),
}
"""The starts of the keys of a checkpoint's parts, by the start of the part's name in a pipeline."""

_COMFYUI = "A ComfyUI (COMFYUI_PATH) opens the file without any of this."


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint.

    Attributes:
        path: the file.
        shapes: the shape of each tensor, by key.
        family: what is particular to its kind of pipeline.
        repository: the model on the hub whose configs and tokenizers suit it.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    family: Family
    repository: str

    def has(self, part: str) -> bool:
        """Return whether the file has the weights of a part of the pipeline."""
        if part == self.family.denoiser:
            return True
        prefixes = next((found for start, found in _PREFIXES.items() if part.startswith(start)), ())
        if part == "text_encoder_3" or (self.family.pipeline == "FluxPipeline" and part == "text_encoder_2"):
            prefixes = ("text_encoders.t5xxl.",)
        return bool(prefixes) and any(key.startswith(prefixes) for key in self.shapes)


def open_single_file(
    path: Path,
    *,
    download: bool = False,
    progress: DownloadProgress = lambda done, total, file: None,
    announce: Callable[[str], None] = log.info,
) -> DiffusersFolder:
    """Read the facts about a base model in a single file, and find the configs and tokenizers that belong to it.

    Args:
        path: the file.
        download: whether the configs and tokenizers may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: the file is no checkpoint that diffusers loads, or a piece that belongs to it is missing; the
            error names each of them and where to put it.
    """
    single = read_single_file(path)
    configs = _configs_of(single, download, progress, announce)
    source = replace(read_folder(configs, path.name), file=path)
    if source.family is not single.family:
        raise CrucibleError(
            f"{path} is a checkpoint for {single.family.pipeline}, but the configs in {configs} are those of "
            f"{source.family.pipeline}, so they do not fit. Put those of {single.repository} there."
        )
    if missing := _missing_pieces(single, source):
        raise _without_pieces(single, missing, f"{configs} has the others")
    if "v_pred" in single.shapes:  # a mark that checkpoints of SDXL have if they predict velocity
        facts = replace(source.facts, prediction_type="v_prediction")
        settings = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "ztsnr" in single.shapes}
        source = replace(source, facts=facts, scheduler={**source.scheduler, **settings})
    return source


def read_single_file(path: Path) -> SingleFile:
    """Recognize the checkpoint in a file.

    Raises:
        CrucibleError: it is no checkpoint that diffusers loads; the error says what it is instead.
    """
    if path.suffix.lower() not in ENDINGS:
        kind = _OTHER_KINDS.get(path.suffix.lower(), "a file of another kind")
        raise CrucibleError(
            f"base_model = {path} is {kind}, not a .safetensors file, and is not opened: pickles can run code, and "
            "weights of few bits cannot be trained on through diffusers. Use the model's .safetensors version, or "
            "convert it: load it in a ComfyUI that you trust it in, and save it with Save Checkpoint."
        )
    shapes = read_header(path).shapes
    found = [row for row in candidates_of_checkpoint(shapes) if row.id in PIPELINES]
    kind = file_kind(shapes)
    if kind not in ("a checkpoint", "a model without text encoder and VAE") or not found:
        other = [row.name for row in candidates_of_checkpoint(shapes)]
        what = f"a {listed(other)} model" if other and kind.startswith("a checkpoint") else kind or "no model"
        raise CrucibleError(
            f"base_model = {path} is {what}, which is nothing that diffusers loads from a single file as a base "
            f"model. It loads checkpoints of {', '.join(sorted(set(PIPELINES.values())))}. Set base_model to one of "
            "these or to a folder in diffusers' format; other architectures are opened by ComfyUI (COMFYUI_PATH)."
        )
    marked: Any = {key: SimpleNamespace(shape=shape) for key, shape in shapes.items()}
    kind = single_file_utils.infer_diffusers_model_type(marked)
    repository = single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
    return SingleFile(path, shapes, FAMILIES[PIPELINES[found[0].id]], repository)


def _configs_of(
    single: SingleFile, download: bool, progress: DownloadProgress, announce: Callable[[str], None]
) -> Path:
    """Return the folder with the configs: the one beside the file with its name, or one that the hub's models are kept
    in."""
    beside = single.path.with_suffix("")
    if (beside / INDEX).is_file():
        return beside
    try:
        return find_model(single.repository, CONFIGS, download=download, progress=progress, announce=announce)
    except CrucibleError:
        if download:
            raise
        raise _without_pieces(single, _all_pieces(single.family), "none was found") from None


def _all_pieces(family: Family) -> list[str]:
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in family.text_encoders]
    configs = [f"{part}/config.json" for part in (family.denoiser, "vae", *family.text_encoders)]
    return [INDEX, *configs, *(f"{name}/ (all of it)" for name in tokenizers), "scheduler/scheduler_config.json"]


def _missing_pieces(single: SingleFile, source: DiffusersFolder) -> list[str]:
    missing = []
    for part in source.kinds:
        folder = source.path / part
        if part in ("safety_checker", "feature_extractor", "image_encoder"):
            continue
        if part.startswith("tokenizer"):
            if not folder.is_dir() or not any(folder.iterdir()):
                missing.append(f"{part}/ (all of it)")
        elif part == "scheduler":
            if not (folder / "scheduler_config.json").is_file():
                missing.append("scheduler/scheduler_config.json")
        elif not (folder / "config.json").is_file():
            missing.append(f"{part}/config.json")
        elif not single.has(part) and not _has_weights(folder):
            missing.append(f"{part}/ with its weights, which are not in the file either")
    return missing


def _has_weights(folder: Path) -> bool:
    return any(variant_of(file.name) is not None for file in folder.glob("*.safetensors"))


def _without_pieces(single: SingleFile, missing: Collection[str], where: str) -> CrucibleError:
    beside = single.path.with_suffix("")
    return CrucibleError(
        f"{single.path} has a model's weights, but diffusers needs more than these to open it, and {where}. Missing: "
        f"{'; '.join(missing)}. Put them into {beside}, from {single.repository} on the Hugging Face hub or any other "
        f"copy of this kind of model in diffusers' format, or start again with --download to fetch what is small. "
        f"{_COMFYUI}"
    )


def load_single_file(source: DiffusersFolder, dtype: torch.dtype, dtype_argument: str) -> Any:
    """Return the pipeline of a single file, in a dtype.

    Parts that the file lacks are loaded from the folder with the configs.

    Raises:
        CrucibleError: diffusers cannot load it.
    """
    assert source.file is not None
    single = read_single_file(source.file)
    others: dict[str, Any] = {"safety_checker": None} if "safety_checker" in source.index else {}
    options = {dtype_argument: dtype, "local_files_only": True}
    try:
        if not single.has("vae"):
            kind = getattr(diffusers, source.kinds["vae"])
            others["vae"] = kind.from_pretrained(source.path / "vae", use_safetensors=True, **options)
        pipeline: Any = getattr(diffusers, source.family.pipeline).from_single_file(
            str(source.file), config=str(source.path), **others, **options
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, AttributeError) as error:
        raise CrucibleError(
            f"diffusers cannot load {source.file} with the configs in {source.path}: {' '.join(str(error).split())} "
            "The file may be of another size or layout than the configs. Use the configs of the model that it was made "
            f"from, or its folder in diffusers' format. {_COMFYUI}"
        ) from error
    if dict(source.scheduler) != dict(pipeline.scheduler.config):
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **_changed(source))
    return pipeline


def _changed(source: DiffusersFolder) -> dict[str, Any]:
    names = ("prediction_type", "rescale_betas_zero_snr")
    return {name: source.scheduler[name] for name in names if name in source.scheduler}


def _small_files(names: Collection[str]) -> list[str]:
    """Return the configs and tokenizers of a pipeline's repository."""
    return [name for name in names if is_small_file(name)] if INDEX in names else []


def _in_cache(repo: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repo, INDEX)
    return Path(index).parent if isinstance(index, str) else None


CONFIGS = HubModels(
    "configuration of an image model",
    "an image model in diffusers' format",
    "image_model_configs",
    _in_cache,
    _small_files,
    f"{INDEX} of a diffusers pipeline",
    INDEX,
)
