"""The metadata of LoRA files.

ss_* keys and their values follow kohya's sd-scripts, modelspec.* keys follow the Stability.AI Model Metadata
Standard 1.0.0 (github.com/Stability-AI/ModelSpec), and crucible.* keys are our own. All values are text. Paths
are reduced to their last part, because LoRA files are shared and the folders on the trainer's disk are private.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from ..config import ObjectiveSettings
from ..messages.wording import counted
from .architectures import Architecture

# Config keys that differ between two runs of the same training.
_NOT_IN_CONFIG = frozenset({"output_dir", "output_name"})


@dataclass(frozen=True)
class TrainingFacts:
    """The facts about a finished or stopped run that its LoRA's metadata contains, as plain values.

    `steps` is the number of optimizer steps done, `max_train_steps` the number planned; the same goes for `epoch` and
    `epochs`. `batches_per_epoch` counts micro-batches. `session` is a number that no other run has. Times are Unix
    seconds. `unit` is the word for an example in the singular, and `captions` has one entry per training image.
    `text_encoder_learning_rate` is None if the text encoder is not trained. `prediction_type` is "epsilon",
    "v_prediction" or another name; if empty, it is omitted. `prior_loss_weight` is the loss weight of regularization
    examples. `version` is the version of this package, and `config` is the resolved config.
    """

    output_name: str
    session: str
    trigger_word: str
    base_model_name: str
    base_model_identity: str
    prediction_type: str
    algorithm: str
    rank: int
    alpha: float
    dropout: float
    learning_rate: float
    text_encoder_learning_rate: float | None
    lr_scheduler: str
    lr_warmup_steps: int
    optimizer: str
    max_grad_norm: float
    steps: int
    max_train_steps: int
    epoch: int
    epochs: int
    batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    mixed_precision: str
    seed: int
    resolution: int | None
    dataset_name: str
    dataset_fingerprint: str
    captions: tuple[str, ...]
    caption_dropout_rate: float
    unit: str
    examples: int
    regularization_examples: int
    prior_loss_weight: float
    objective: ObjectiveSettings
    batches_per_epoch: int
    started_at: float
    finished_at: float
    version: str
    config: Mapping[str, Any] = field(default_factory=dict)


def build_metadata(architecture: Architecture, facts: TrainingFacts) -> dict[str, str]:
    """Build the metadata of a LoRA file. Two runs with the same seed only differ in times, name and session.

    `write_lora` adds the hash of the tensors.
    """
    ss: dict[str, Any] = {
        "output_name": facts.output_name,
        "session_id": facts.session,
        "base_model_version": architecture.base_model_version,
        "sd_model_name": _last_part(facts.base_model_name),
        **_network(facts.algorithm),
        "network_dim": facts.rank,
        "network_alpha": facts.alpha,
        "network_dropout": facts.dropout or None,
        "learning_rate": facts.learning_rate,
        "lr_scheduler": facts.lr_scheduler,
        "lr_warmup_steps": facts.lr_warmup_steps,
        "optimizer": facts.optimizer,
        "max_grad_norm": facts.max_grad_norm,
        "steps": facts.steps,
        "max_train_steps": facts.max_train_steps,
        "epoch": facts.epoch,
        "num_epochs": facts.epochs,
        "batch_size_per_device": facts.batch_size,
        "total_batch_size": facts.batch_size * facts.gradient_accumulation_steps,
        "gradient_accumulation_steps": facts.gradient_accumulation_steps,
        "gradient_checkpointing": facts.gradient_checkpointing,
        "mixed_precision": {"fp32": "no"}.get(facts.mixed_precision, facts.mixed_precision),
        "full_fp16": False,
        "seed": facts.seed,
        "prior_loss_weight": facts.prior_loss_weight,
        "num_batches_per_epoch": facts.batches_per_epoch,
        "training_comment": None,
        "training_started_at": facts.started_at,
        "training_finished_at": facts.finished_at,
    }
    if facts.unit == "image":
        ss |= _about_images(architecture, facts)
    modelspec = {
        "sai_model_spec": "1.0.0",
        "architecture": architecture.modelspec,
        "implementation": architecture.implementation,
        "title": facts.output_name,
        "description": f"Trained with LoRA Crucible: {counted(facts.examples, facts.unit)}, "
        f"{counted(facts.steps, 'step')}, rank {facts.rank}.",
        "date": datetime.fromtimestamp(int(facts.finished_at), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resolution": None if facts.resolution is None else f"{facts.resolution}x{facts.resolution}",
        "trigger_phrase": facts.trigger_word,
        "prediction_type": {"v_prediction": "v"}.get(facts.prediction_type, facts.prediction_type),
    }
    config = {key: _shareable(value) for key, value in facts.config.items() if key not in _NOT_IN_CONFIG}
    crucible = {
        "version": facts.version,
        "base_model": facts.base_model_identity,
        "dataset": facts.dataset_fingerprint,
        "config": _json(config),
    }
    if facts.unit != "image":
        crucible |= {
            f"{facts.unit}s": str(facts.examples),
            f"regularization_{facts.unit}s": str(facts.regularization_examples),
        }
    return {
        **{f"ss_{key}": str(value) for key, value in ss.items()},
        **{f"modelspec.{key}": value for key, value in modelspec.items() if value},
        **{f"crucible.{key}": value for key, value in crucible.items()},
    }


def _about_images(architecture: Architecture, facts: TrainingFacts) -> dict[str, Any]:
    """Return kohya's metadata that only means something for models of images."""
    images, dataset = len(facts.captions), _last_part(facts.dataset_name)
    return {
        "v2": architecture.id in ("sd2", "sd2_v"),
        "unet_lr": facts.learning_rate,
        "text_encoder_lr": facts.text_encoder_learning_rate,
        "cache_latents": True,
        "resolution": None if facts.resolution is None else (facts.resolution, facts.resolution),
        "num_train_images": images,
        "num_reg_images": facts.regularization_examples,
        "caption_dropout_rate": facts.caption_dropout_rate,
        **_objective(facts.objective),
        "dataset_dirs": _json({dataset: {"n_repeats": 1, "img_count": images}}),
        "tag_frequency": _json({dataset: tag_frequency(facts.captions)}),
    }


def _network(algorithm: str) -> dict[str, Any]:
    """Return the metadata that names the algorithm: kohya's own module for LoRA, LyCORIS for all others."""
    if algorithm in ("lora", "rslora"):
        return {"network_module": "networks.lora"}
    arguments = {"algo": "lora", "dora_wd": "True"} if algorithm == "dora" else {"algo": algorithm}
    return {"network_module": "lycoris.kohya", "network_args": _json(arguments)}


def _objective(settings: ObjectiveSettings) -> dict[str, Any]:
    """Return the metadata of the loss. Huber's limit is omitted, because it means something else in kohya's formula."""
    return {
        "noise_offset": settings.noise_offset or None,
        "min_snr_gamma": settings.min_snr_gamma if settings.loss_weighting == "min_snr" else None,
        "debiased_estimation": settings.loss_weighting == "debiased",
        "loss_type": {"mse": "l2"}.get(settings.loss_type, settings.loss_type),
    }


def tag_frequency(captions: Iterable[str]) -> dict[str, int]:
    """Count how often each comma-separated part of the captions occurs, in lower case, most frequent first."""
    parts = (part.strip().lower() for caption in captions for part in caption.split(","))
    counts = Counter(part for part in parts if part)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name or path


def _shareable(value: Any) -> Any:
    """Return a config value; if it is an absolute path, only its last part."""
    if not isinstance(value, (str, PurePath)):
        return value
    text = str(value)
    hidden = text.startswith("~") or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return _last_part(text) if hidden else text
