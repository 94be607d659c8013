"""What a run says about itself when it is over."""

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
    """A LoRA that was written.

    Attributes:
        outcome: how the run ended, in words.
        parameters: how many numbers were trained, in how many `layers`. size: of the file, in bytes.
        step: after which it was as it is in the file. last: where the state after the last step is, if that is
        another; or "".
    """

    outcome: str
    path: Path
    name: str
    parameters: int
    layers: int
    size: int
    step: int
    last: str


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
    """The report as one page of plain text.

    Args:
        losses: of each step, at least one.
        seconds: since the first step began.
        watched: lines of what was measured beside the loss.
        reasons: for each value that was chosen automatically.
        notes: on the settings and the base model.
    """
    tenth = max(1, len(losses) // 10)
    trigger = f', trigger word "{dataset.trigger_word}"' if dataset.trigger_word else ""
    lines = [
        f"{saved.name}: {saved.outcome} after {len(losses)} of {config.max_train_steps} steps in {seconds:.0f} s "
        f"({len(losses) / seconds:.2f} steps/s with samples), {precision}",
        f"File: {saved.path} ({size_text(saved.size)}, {config.save_precision})",
        f"Trained: {config.algorithm}, {saved.parameters:,} parameters in {saved.layers} layers ({_layers(config)}), "
        f"rank {config.lora_rank}, alpha {config.lora_alpha:g}",
        f"Base model: {base_model.name} ({base_model.architecture.name})",
        f"Dataset: {dataset.name}, {dataset.summary(config.resolution)}{trigger}",
        cache_text,
        f"Loss: {sum(losses[:tenth]) / tenth:.4f} in the first tenth of the steps, "
        f"{sum(losses[-tenth:]) / tenth:.4f} in the last",
    ]
    if saved.last:
        lines.insert(2, f"It is the best state, after step {saved.step}, by the validation error; {saved.last}")
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
    """How much of the inputs was there already. Cleans the cache."""
    size = cache.clean()
    return (
        f"Cache: {cache.made} encoded, {cache.found} found, {size_text(size)} of {size_text(cache.limit)} used in "
        f"{cache.folder}"
    )
