"""The strength that PEFT and diffusers store beside a LoRA's tensors, in a config, rather than as alphas among them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .adapter_keys import Shapes, has_rank, split_key
from .header import ENDINGS, LoraHeader, read_header
from .spelling import names_text_encoder

CONFIG = "adapter_config.json"
METADATA = "lora_adapter_metadata"
"""Where the config is: in a file beside PEFT's adapter_model.safetensors, or in the metadata of diffusers' files."""

MOST_BYTES = 1_000_000
"""The largest config, in bytes, that is read; one with a value for each layer of a large model has a tenth of this."""

MOST_SCALE = 1000
"""The largest plausible alpha / rank; anything above is a mistake."""

_PEFT_SUFFIX = re.compile(r"lora_[AB]\b.*|hada_.*|lokr_.*")
_ALPHAS = ("lora_alpha", "alpha")
"""The names of alpha in the configs of LoRA, and of LoHa and LoKr."""

_SAFE_PATTERN = re.compile(r"(?!.*\)[*+?{])(?!(?:.*[*+{]){4}).{1,300}", re.DOTALL)
"""Regular expressions without repeated groups and with few repetitions, so that none takes long on the name of a layer.
Configs are files from other people."""


@dataclass(frozen=True)
class PeftScale:
    """What a config says about the strength of a LoRA.

    Attributes:
        source: the file or entry that has the config.
        scales: alpha / rank (alpha / √rank for rsLoRA) by layer, without those where it is 1.
        problem: a sentence that says why the config was not used; empty if it was.
    """

    source: str
    scales: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    def text(self) -> str:
        """Return a line for the user; empty if the LoRA has its usual strength."""
        if self.problem or not self.scales:
            return self.problem
        least, most = min(self.scales.values()), max(self.scales.values())
        scale = f"{least:.4g}" if least == most else f"{least:.4g} to {most:.4g}"
        return (
            f"Scale: {scale} (alpha and rank from {self.source}), applied here as PEFT and diffusers do. Programs that "
            f"do not read it, such as ComfyUI's own loader, need {scale} times the strength."
        )


def config_paths(lora: Path) -> list[Path]:
    """Return the path of the config that can belong to a LoRA: beside PEFT's own name, or the only LoRA in a folder.

    In a folder of many LoRAs, it belongs to another one.
    """
    path = lora.parent / CONFIG
    if not path.is_file() or path.resolve().parent not in (lora.parent.resolve(), lora.resolve().parent):
        return []
    others = (one for one in lora.parent.iterdir() if one.suffix.lower() in ENDINGS)
    alone = lora.stem.startswith("adapter_model") or all(one.name == lora.name for one in others)
    return [path] if alone else []


def base_model_name(metadata: Mapping[str, str], lora: Path | None) -> str:
    """Return the name of the base model that a LoRA was trained on; "" if it is not known.

    Args:
        metadata: the file's metadata.
        lora: the file, beside which PEFT's config can be; None if there is none.
    """
    if stated := metadata.get("ss_sd_model_name"):
        return stated
    for path in [] if lora is None else config_paths(lora):
        try:
            with open(path, "rb") as file:
                config = json.loads(file.read(MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            continue  # what is wrong with it is told with the scale
        name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
        if isinstance(name, str):  # of a folder on the trainer's disk, the last part says enough
            is_folder = name.startswith(("/", "~", ".")) or "\\" in name or name.count("/") > 1
            return name.replace("\\", "/").rstrip("/").rpartition("/")[2] if is_folder else name
    return ""


def scale_of_file(header: LoraHeader) -> PeftScale | None:
    """Return what the config of a LoRA file says about its strength; None if there is no config that counts.

    diffusers' config in the file's metadata comes before PEFT's beside the file.
    """
    if METADATA in header.metadata:
        return scale_in_metadata(header.shapes, header.metadata)
    for config in config_paths(header.path):
        try:
            with open(config, "rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            return PeftScale(CONFIG, problem=f"{CONFIG} could not be read: {error.strerror or error}. {_WITHOUT}")
        return _read(CONFIG, content, header.shapes)
    return None


def scale_text(lora: Path, metadata: Mapping[str, str]) -> str:
    """Return a line for the user about the scale that a LoRA file has in a config; empty if it has its usual strength.

    Args:
        lora: the file.
        metadata: the file's metadata.
    """
    if METADATA not in metadata and not config_paths(lora):
        return ""  # the usual case, without reading the file again
    scale = scale_of_file(read_header(lora))
    return "" if scale is None else scale.text()


def scale_in_metadata(shapes: Shapes, metadata: Mapping[str, str]) -> PeftScale | None:
    """Return what diffusers' config in a LoRA's metadata says about its strength; None if there is none that counts.

    Args:
        shapes: the shape of each tensor, by key.
        metadata: the LoRA's metadata.
    """
    return _read(METADATA, metadata[METADATA], shapes) if METADATA in metadata else None


def with_alphas(tensors: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """Return a LoRA's tensors with a scale for some layers as all programs read it: as alphas among the tensors.

    A LoKr of two whole matrices has no rank, so that alphas do not count: there the first matrix is multiplied.

    Args:
        tensors: the LoRA's tensors by key.
        scales: alpha / rank by layer.
    """
    ranks = _layers_without_alpha({key: tensor.shape for key, tensor in tensors.items()})
    scaled = dict(tensors)
    for layer, scale in scales.items():
        if rank := ranks[layer]:
            scaled[f"{layer}.alpha"] = torch.tensor(scale * rank)
        elif (whole := scaled.get(f"{layer}.lokr_w1")) is not None:
            scaled[f"{layer}.lokr_w1"] = (whole.float() * scale).to(whole.dtype)
    return scaled


def _layers_without_alpha(shapes: Shapes) -> dict[str, int]:
    """Return the rank of each layer that is in PEFT's names and has no alpha; 0 for a LoKr of two whole matrices.

    An alpha that a file has comes before any config.
    """
    ranks: dict[str, int] = {}
    with_alpha = set()
    for key, shape in shapes.items():
        layer, suffix = split_key(key) or ("", "")
        if suffix == "alpha":
            with_alpha.add(layer)
        elif _PEFT_SUFFIX.fullmatch(suffix):
            ranks[layer] = ranks.get(layer) or (int(shape[0]) if has_rank(suffix) and shape else 0)
    return {layer: rank for layer, rank in ranks.items() if layer not in with_alpha}


_WITHOUT = "So the LoRA acts as if its alpha were its rank. If it is too weak or too strong, change its strength."


def _read(source: str, content: str | bytes, shapes: Shapes) -> PeftScale | None:
    ranks = _layers_without_alpha(shapes)
    if not ranks:
        return None
    try:
        if len(content) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES // 1_000_000} MB")
        parts = _parts(_parsed(content))
        known = {rank for part in parts.values() for rank in part.ranks}
        if parts and known.isdisjoint(ranks.values()) and any(ranks.values()):
            said, has = (", ".join(f"{rank:g}" for rank in sorted(of)[:3]) for of in (known, {*ranks.values()} - {0}))
            raise ValueError(f"it is for rank {said}, and the LoRA has rank {has}")
        scales = {layer: _scale(layer, rank, parts) for layer, rank in ranks.items()}
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        return PeftScale(source, problem=f"{source} was not used: {why}. {_WITHOUT}")
    return PeftScale(source, {layer: scale for layer, scale in scales.items() if abs(scale - 1) > 1e-6})


def _parsed(content: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        raise ValueError("it is not valid JSON") from None
    if not isinstance(found, dict):
        raise ValueError("it is no config of a LoRA")
    return found


def _scale(layer: str, rank: int, parts: Mapping[str, _Part]) -> float:
    part, name = _part_of(layer, parts)
    return 1.0 if part is None else part.scale(name, rank)


@dataclass(frozen=True)
class _Part:
    """The config of one model of a pipeline; numbers are as they were found, and can be anything."""

    alpha: Any
    rank: Any
    alphas: Mapping[str, Any]
    rank_pattern: Mapping[str, Any]
    ranks: frozenset[float]
    root: bool

    def scale(self, name: str, rank: int) -> float:
        """Return the scale of a layer by its name in the model and its rank (0: that of the config).

        Raises:
            ValueError: it is no plausible number.
        """
        found, own_rank = _matching(self.alphas, name), _matching(self.rank_pattern, name)
        alpha = _number(self.alpha if found is None else found)
        divisor = rank or _number(self.rank if own_rank is None else own_rank)
        if alpha is None or not divisor or divisor < 0:
            raise ValueError("its alpha and rank are no numbers")
        scale = alpha / (math.sqrt(divisor) if self.root else divisor)
        if not 0 < scale <= MOST_SCALE:
            raise ValueError(f"its alpha {alpha:g} for rank {divisor:g} is not plausible")
        return scale


def _parts(config: Mapping[str, Any]) -> dict[str, _Part]:
    """Return the configs by model ("unet", "text_encoder", …), or one under "" if the names have no model in front."""
    parts = {}
    for key, rank in config.items():
        before, dot, last = key.rpartition(".")
        alpha = next((config[f"{before}{dot}{name}"] for name in _ALPHAS if f"{before}{dot}{name}" in config), None)
        if last != "r" or alpha is None:
            continue
        patterns = [config.get(f"{before}{dot}{which}_pattern") for which in ("alpha", "rank")]
        alphas, ranks = (found if isinstance(found, dict) else {} for found in patterns)
        known = (_number(one) for one in (rank, *ranks.values()))
        root = config.get(f"{before}{dot}use_rslora") is True
        parts[before] = _Part(alpha, rank, alphas, ranks, frozenset(one for one in known if one is not None), root)
    return parts


def _part_of(layer: str, parts: Mapping[str, _Part]) -> tuple[_Part | None, str]:
    """Return the config that a layer belongs to, and the layer's name in its model."""
    name = layer.removeprefix("base_model.model.")
    model = max((one for one in parts if one and name.startswith(f"{one}.")), key=len, default="")
    if model:
        return parts[model], name.removeprefix(f"{model}.")
    if "" in parts:
        return parts[""], name
    denoisers = [one for one in parts if not names_text_encoder(f"{one}.")]
    if len(denoisers) == 1 and not names_text_encoder(layer):  # renamed by a program that kept the metadata
        return parts[denoisers[0]], name.partition(".")[2]
    return None, name


def _matching(patterns: Mapping[str, Any], name: str) -> Any:
    """Return the value of the first pattern that matches the end of a layer's name, as PEFT chooses it."""
    if not patterns:
        return None
    parts = name.split(".")
    ends = {".".join(parts[start:]) for start in range(len(parts))}
    for pattern, value in patterns.items():
        if pattern in ends:
            return value
        if re.fullmatch(r"[\w.]+", pattern) or not _SAFE_PATTERN.fullmatch(pattern):
            continue
        try:
            if re.match(rf"(.*\.)?({pattern})$", name[:300]):
                return value
        except (re.error, RecursionError, OverflowError):
            continue
    return None


def _number(value: Any) -> float | None:
    """Return a finite number of a config; None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
