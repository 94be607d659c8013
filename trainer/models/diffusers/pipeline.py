"""A diffusers pipeline taken apart: its denoiser, VAE and text encoders, and what they make of captions and images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ...distributed.processes import current
from ...errors import CrucibleError
from ...formats.header import read_header
from ...hardware.out_of_memory import Attempt, first_that_fits
from ..diffusion.inputs import Encoders
from ..identity import weights_hash
from ..splitting import split_blocks
from .families.base import Encoded
from .folder import DiffusersFolder
from .pipeline_files import variant_of
from .single_file import load_single_file

log = logging.getLogger(__name__)

_CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Pipeline:
    """The parts of a diffusers pipeline.

    Args:
        source: the folder with its model_index.json.
        weights: whether to load the weights. Without them, the denoiser and the text encoders that can be trained have
            only their layers, on the device "meta", and there is no VAE.
        split: whether to split the denoiser over the processes of the run. Of a folder, only the main one reads it.

    Attributes:
        family: what is particular to this kind of pipeline.
        whole: the pipeline itself.
        device: the device that it is used on.
        trains_text: whether its text encoders are trained, so that they stay on the device.
    """

    def __init__(self, source: DiffusersFolder, *, weights: bool = True, split: bool = False) -> None:
        self.family = source.family
        self._to_split = split
        self.trains_text = False
        if not weights:
            self.whole: Any = _layers(source)
            self.device = torch.device("meta")
            return
        is_given = split and not current().is_main and source.file is None  # single files are read as a whole
        self.whole = _loaded(source, {self.family.denoiser: _denoiser_layers(source)} if is_given else {})
        self.whole.set_progress_bar_config(disable=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer that is trained."""
        return getattr(self.whole, self.family.denoiser)

    @property
    def vae(self) -> Any:
        """The image encoder and decoder."""
        return self.whole.vae

    def text_encoders(self) -> dict[str, nn.Module]:
        """Return the text encoders by their names in the pipeline."""
        parts = {name: getattr(self.whole, name, None) for name in self.family.text_encoders}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def pixels_per_latent(self) -> int:
        """The number of pixels along the side of a latent pixel."""
        return int(getattr(self.whole, "vae_scale_factor", 0) or self.whole.vae_scale_factor_spatial)

    def trainable_text_encoders(self) -> dict[str, nn.Module]:
        """Return the text encoders that can be trained by the prefix of their keys in a LoRA file."""
        prefixes = self.family.trainable_text_encoders
        return {prefixes[name]: encoder for name, encoder in self.text_encoders().items() if name in prefixes}

    def encode(self, text: str) -> Encoded:
        """Encode a caption to tensors on the CPU."""
        embedding, pooled = self.encode_on_device(text)
        return embedding.cpu(), None if pooled is None else pooled.cpu()

    def encode_on_device(self, text: str) -> Encoded:
        """Encode a caption, with gradients where they are enabled."""
        return self.family.encode(self.whole, text, self.device)

    def load_encoders(self) -> None:
        """Move the VAE and the text encoders to the device."""
        for part in (self.vae, *self.text_encoders().values()):
            part.to(self.device)

    def release_encoders(self) -> None:
        """Move the VAE to the host, and the text encoders too unless they are trained."""
        for part in [self.vae] if self.trains_text else [self.vae, *self.text_encoders().values()]:
            part.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prepare_denoiser(self, dtype: torch.dtype) -> None:
        """Move the denoiser to the device in the dtype of the computation, without gradients.

        Parts that a model keeps in float32 for its accuracy stay in it.
        """
        denoiser = self.denoiser.requires_grad_(False)
        if current().joint:
            return  # an earlier session has split it
        device = torch.device("cpu") if self._to_split else self.device
        if not self._to_split or current().is_main:
            _convert(denoiser, device, dtype)
        if self._to_split:
            split_blocks(denoiser, denoiser, self.device)


def _convert(denoiser: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Move a denoiser to a device and to a dtype, except for the parts that it keeps in float32."""
    kept = set(getattr(denoiser, "_keep_in_fp32_modules", None) or ())
    if not kept:
        denoiser.to(device, dtype)
        return
    for name, parameter in denoiser.named_parameters():  # first, because the device may have no room for all in float32
        if not kept & set(name.split(".")):
            parameter.data = parameter.data.to(device, dtype)
    denoiser.to(device)


def _loaded(source: DiffusersFolder, given: Mapping[str, nn.Module]) -> Any:
    """Return the pipeline of a folder with its weights, and with the parts that are given.

    VAEs and CLIPs are in float32, and so are UNets until a session: SDXL's VAE produces NaN in float16. Transformers
    and language models keep the dtype of their files, because in float32 they may not fit into main memory.
    """
    family, kinds = source.family, source.kinds
    if source.file is not None:
        return _from_file(source, source.file)
    large = [family.denoiser] if family.is_flow else []
    large += [name for name in family.text_encoders if kinds.get(name, "") not in ("", *_CLIP)]
    dtypes: dict[str, torch.dtype] = {name: _dtype(source.path / name) for name in large}
    arguments: dict[str, Any] = {dtype_argument(): {**dtypes, "default": torch.float32}, **given}
    if "safety_checker" in source.index:
        arguments |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        pipeline: Any = DiffusionPipeline.from_pretrained(
            source.path, local_files_only=True, use_safetensors=True, **arguments, **_variant(source)
        )
    except (OSError, ValueError, ImportError) as error:
        raise CrucibleError(
            f"diffusers cannot load the model in {source.path}: {' '.join(str(error).split())} Without all of its "
            "parts it cannot be trained. Weights are read from .safetensors files only, because pickles (.bin, .ckpt) "
            "can run code. Download or copy the folder again."
        ) from error
    return pipeline


def _from_file(source: DiffusersFolder, file: Path) -> Any:
    """Return the pipeline of a single file, in the same dtypes as that of a folder."""
    family = source.family
    dtype = _dtype_of([file]) if family.is_flow else torch.float32
    pipeline = load_single_file(source, dtype, dtype_argument())
    exact = ["vae", *(name for name in family.text_encoders if source.kinds.get(name) in _CLIP)]
    for name in exact:
        if (part := getattr(pipeline, name, None)) is not None:
            part.to(torch.float32)
    return pipeline


def dtype_argument() -> str:
    """Return the name of the argument of diffusers' loaders that sets the dtype, which has changed."""
    version = tuple(int(part) for part in diffusers.__version__.split(".")[:2])
    return "dtype" if version >= (0, 42) else "torch_dtype"


def _dtype(folder: Path) -> torch.dtype:
    return _dtype_of(sorted(folder.glob("*.safetensors"))[:1])


def _dtype_of(files: Sequence[Path]) -> torch.dtype:
    """Return the dtype that most weights in files have; bfloat16 for one that cannot be computed with."""
    types: Counter[str] = Counter()
    for file in files:
        types.update(kind for kind, _ in read_header(file).entries.values())
    return _DTYPES.get(types.most_common(1)[0][0], torch.bfloat16) if types else torch.bfloat16


def _variant(source: DiffusersFolder) -> dict[str, str]:
    """Return the argument that names the variant of a folder's weights, if it has no others."""
    names = [file.name for file in (source.path / source.family.denoiser).glob("*.safetensors")]
    variants = {found for found in map(variant_of, names) if found is not None}
    return {} if "" in variants or not variants else {"variant": min(variants)}


def _layers(source: DiffusersFolder) -> SimpleNamespace:
    """Return the denoiser and the text encoders that can be trained of a diffusers folder, without their weights."""
    family = source.family
    parts: dict[str, Any] = {family.denoiser: _denoiser_layers(source)}
    with torch.device("meta"):
        for name in family.trainable_text_encoders:
            if name in source.kinds:
                encoder = getattr(transformers, source.kinds[name])
                parts[name] = encoder(encoder.config_class.from_pretrained(source.path / name))
    return SimpleNamespace(**parts)


def _denoiser_layers(source: DiffusersFolder) -> Any:
    """Return the denoiser of a diffusers folder with its layers and without its weights.

    What it computes when it is made, such as frequencies of positions, is there.
    """
    kind = getattr(diffusers, source.kinds[source.family.denoiser])
    with init_empty_weights():
        return kind.from_config(kind.load_config(source.path / source.family.denoiser))


class PipelineEncoders(Encoders):
    """The encoders of a diffusers pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.vae_identity = weights_hash(pipeline.vae.state_dict().items())
        hashes = [weights_hash(encoder.state_dict().items()) for encoder in pipeline.text_encoders().values()]
        self.text_identity = "diffusers|" + "|".join(hashes)

    def latent(self, pixels: Tensor, name: str) -> Tensor:
        rows = pixels.permute(2, 0, 1).unsqueeze(0).to(self._pipeline.device)
        outcome = first_that_fits(
            [
                Attempt("in one piece", partial(self._latent, rows)),
                Attempt("in tiles", partial(self._latent_in_tiles, rows)),
            ]
        )
        if len(outcome.tried) > 1:
            log.warning("There is not enough memory to encode %s in one piece, so the VAE encodes it in tiles.", name)
        latent = outcome.required()
        self._require_patches(latent.shape, tuple(pixels.shape[:2]), name)
        return latent

    def _require_patches(self, shape: Sequence[int], sides: Sequence[int], name: str) -> None:
        patch = self._pipeline.family.patch
        if any(side % patch for side in shape[-2:]):
            step = patch * sides[0] // shape[-2]
            raise CrucibleError(
                f"{name} is trained at {sides[1]} x {sides[0]} pixels, and this model cuts images into squares of "
                f"{step} x {step} pixels, which do not fit. Set bucket_step to a multiple of {step}. Resolutions "
                "below 256 have steps of 16 pixels at most."
            )

    def _latent_in_tiles(self, rows: Tensor) -> Tensor:
        self._pipeline.vae.enable_tiling()
        try:
            return self._latent(rows)
        finally:
            self._pipeline.vae.disable_tiling()

    def _latent(self, rows: Tensor) -> Tensor:
        return self._pipeline.family.latent(self._pipeline.vae, rows * 2 - 1).cpu()

    def caption(self, text: str) -> Encoded:
        return self._pipeline.encode(text)
