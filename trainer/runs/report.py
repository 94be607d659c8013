"""The report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.cache import TensorCache
from ..messages.wording import size_text
from ..models.base import BaseModel
from ..planning.plan import note_lines


@dataclass(frozen=True)
class SavedLora:
    """A LoRA file that was written.

    Attributes:
        outcome: how the run ended, such as "finished".
        path: the path of the file.
        name: the name of the LoRA.
        parameters: the number of trained parameters.
        layers: the number of layers with an adapter.
        size: the size of the file in bytes.
        step: the number of steps after which the weights in the file were reached.
        last: a clause that says where the state after the last step is saved, if that is not in the file; or "".
        beside: a sentence about a further form of the LoRA, or "".
    """

    outcome: str
    path: Path
    name: str
    parameters: int
    layers: int
    size: int
    step: int
    last: str
    beside: str = ""


def training_report(
    saved: SavedLora,
    base_model: BaseModel,
    dataset: Dataset,
    config: ResolvedConfig,
    *,
    precision: str,
    losses: Sequence[float],
    seconds: float,
    cache_text: str,
    watched: Sequence[str],
    reasons: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """Return the report as one page of plain text.

    Args:
        saved: the LoRA file that was written.
        base_model: the base model that was trained on.
        dataset: the dataset that was trained.
        config: the settings of the run.
        precision: the precision of the training: fp32, fp16 or bf16.
        losses: the loss of each step, at least one.
        seconds: the training time in seconds.
        cache_text: the line about the cache, or "".
        watched: lines about everything that was measured besides the loss.
        reasons: the reason for each value that was chosen automatically, by the name of the setting.
        notes: sentences about the settings, the base model and what failed.
    """
    tenth = max(1, len(losses) // 10)
    trigger = f', trigger word "{dataset.trigger_word}"' if dataset.trigger_word else ""
    lines = [
        f"{saved.name}: {saved.outcome} after {len(losses)} of {config.max_train_steps} steps in {seconds:.0f} s "
        f"({len(losses) / max(seconds, 0.001):.2f} steps/s with samples), {precision}",
        f"File: {saved.path} ({size_text(saved.size)}, {config.save_precision})",
        f"Trained: {config.algorithm}, {saved.parameters:,} parameters in {saved.layers} layers ({_layers(config)}), "
        f"rank {config.lora_rank}, alpha {config.lora_alpha:g}",
        f"Base model: {base_model.name} ({base_model.architecture.name})",
        f"Dataset: {dataset.name}, {dataset.summary(config.resolution)}{trigger}",
        *([cache_text] if cache_text else ()),
        f"Loss: {sum(losses[:tenth]) / tenth:.4f} in the first tenth of the steps, "
        f"{sum(losses[-tenth:]) / tenth:.4f} in the last",
    ]
    if saved.last:
        lines.insert(2, f"This is the best state, after step {saved.step}, by its validation error; {saved.last}")
    if saved.beside:
        lines.insert(2, saved.beside)
    lines += watched
    if reasons:
        lines.append("Chosen automatically:")
        lines += [f"  {name} = {reason}" for name, reason in reasons.items()]
    lines += note_lines(notes)
    return "\n".join(lines)


def _layers(config: ResolvedConfig) -> str:
    layers: str = "layer_patterns" if config.layer_patterns else config.target_modules
    if config.continue_from:
        return f"those of {Path(config.continue_from).name}"
    return f"{layers} and text encoder" if config.train_text_encoder else layers


def cache_text(cache: TensorCache) -> str:
    """Delete old entries from the cache, and return the report line about it, "" if nothing needed it."""
    size = cache.clean()
    if not cache.made and not cache.found:
        return ""
    return (
        f"Cache: {cache.made} encoded, {cache.found} found, {size_text(size)} of {size_text(cache.limit)} used in "
        f"{cache.folder}"
    )
