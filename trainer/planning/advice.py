"""What is worth saying about settings before a run: nothing that is wrong, but much that surprises people later."""

from __future__ import annotations

from collections.abc import Iterator

from ..config.facts import DatasetFacts, ModelFacts
from ..config.optimizer_defaults import OPTIMIZER_DEFAULTS
from ..config.resolved import ResolvedConfig
from ..config.schema import TrainingConfig
from .resolve import usual_learning_rate
from .run_length import EFFECTIVE_BATCH

NEARLY_FULL_RANK = 64
LEAST_RESOLUTION = 384
MANY_TIMES_THE_RATE = 5
MANY_VIEWINGS = 200
"""How often an image can be shown before most LoRAs know it by heart."""

CLIP_ARCHITECTURES = frozenset({"sd15", "sd2", "sd2_v", "sdxl"})
"""Whose text encoders are small enough to be trained with profit."""


def notes(
    config: TrainingConfig, dataset: DatasetFacts | None = None, model: ModelFacts | None = None
) -> tuple[str, ...]:
    """Sentences for people; fewer where settings are still on auto, or dataset and model are unknown."""
    found = [*_of_the_file(config), *_of_the_strength(config, model), *_of_the_steps(config, dataset, model)]
    if isinstance(config, ResolvedConfig) and dataset is not None and model is not None:
        found += _of_the_text_encoder(config, dataset, model)
    return tuple(found)


def _of_the_file(config: TrainingConfig) -> Iterator[str]:
    if config.algorithm == "dora":
        yield "algorithm = dora: applied by ComfyUI and Forge only; diffusers leaves its scales out."
    if config.algorithm in ("loha", "lokr"):
        yield f"algorithm = {config.algorithm}: read by ComfyUI, A1111 and Forge, not by diffusers."


def _of_the_strength(config: TrainingConfig, model: ModelFacts | None) -> Iterator[str]:
    rank, alpha = config.lora_rank, config.lora_alpha
    if rank is not None and rank >= NEARLY_FULL_RANK:
        yield f"lora_rank = {rank}: close to full fine-tuning, and overfits small sets. 8 to 32 is usual."
    if rank is not None and alpha is not None and config.algorithm != "rslora" and not rank / 2 <= alpha <= rank:
        acts = f"{alpha / rank:.2g} times its strength"
        yield f"lora_alpha = {alpha:g} with lora_rank = {rank}: the LoRA acts at {acts}. 0.5 to 1 is usual."
    if config.learning_rate is not None and model is not None:
        usual, _ = usual_learning_rate(config, model.architecture)
        times = config.learning_rate / usual
        named = OPTIMIZER_DEFAULTS[config.optimizer].title
        if times >= MANY_TIMES_THE_RATE:
            yield (
                f"learning_rate = {config.learning_rate:g}: {times:.0f} times what is usual for {named} on this model, "
                "so the loss may swing or the pictures break; halve it if they do."
            )


def _of_the_steps(config: TrainingConfig, dataset: DatasetFacts | None, model: ModelFacts | None) -> Iterator[str]:
    batch, accumulation, steps = config.batch_size, config.gradient_accumulation_steps, config.max_train_steps
    if batch is not None and accumulation is not None and batch * accumulation < EFFECTIVE_BATCH:
        yield (
            f"batch_size = {batch} with gradient_accumulation_steps = {accumulation}: steps on fewer than "
            f"{EFFECTIVE_BATCH} images swing. Accumulation makes up for it without more memory: "
            f"gradient_accumulation_steps = {-(-EFFECTIVE_BATCH // batch)}."
        )
    small_model = model is not None and model.native_resolution < LEAST_RESOLUTION
    if config.resolution is not None and config.resolution < LEAST_RESOLUTION and not small_model:
        yield f"resolution = {config.resolution}: under {LEAST_RESOLUTION} pixels too little is left of an image."
    if config.purpose == "quick_test":
        yield "purpose = quick_test: this LoRA shows that everything works; it is not meant for use."
    if dataset is not None and steps is not None and batch is not None and accumulation is not None:
        shown = steps * batch * accumulation * dataset.training_share / dataset.images
        if shown >= MANY_VIEWINGS:
            yield (
                f"Every image is shown about {shown:.0f} times, which is enough to learn many of them by heart: more "
                "images help more than more steps."
            )


def _of_the_text_encoder(config: ResolvedConfig, dataset: DatasetFacts, model: ModelFacts) -> Iterator[str]:
    if model.architecture not in CLIP_ARCHITECTURES or config.train_text_encoder or not dataset.trigger_word:
        return
    if config.purpose in ("character", "object", "concept"):
        yield (
            f'train_text_encoder is off, which is enough most of the time. Switch it on if "{dataset.trigger_word}" '
            "does not call up what was learned: it helps a new word to mean something, for more memory and time."
        )
