"""Notes about settings that are valid but often surprise people later, shown before a run starts."""

from __future__ import annotations

from collections.abc import Iterator

from ..config.facts import DatasetFacts, ModelFacts
from ..config.optimizer_defaults import OPTIMIZER_DEFAULTS
from ..config.resolved import ResolvedConfig
from ..config.sample_prompts import comments
from ..config.schema import TrainingConfig
from ..messages.wording import counted, listed
from .resolve import usual_learning_rate
from .run_length import EFFECTIVE_BATCH

NEARLY_FULL_RANK, NEARLY_FULL_RANK_OF_TEXTS = 64, 128
LEAST_RESOLUTION = 384
MANY_TIMES_THE_RATE = 5
MANY_VIEWINGS, MANY_READINGS = 200, 50
"""How many times an image can be shown, and a row read, before most LoRAs have memorised it."""

HALF_FULL = 0.5
"""Batches that hold less than this fraction of `batch_size` on average are worth a note."""

CLIP_ARCHITECTURES = frozenset({"sd15", "sd2", "sd2_v", "sdxl"})
"""Architectures whose text encoders are small enough for training them to pay off."""


def notes(
    config: TrainingConfig, dataset: DatasetFacts | None = None, model: ModelFacts | None = None
) -> tuple[str, ...]:
    """Return notes for the user; fewer while settings are still on auto, or the dataset or model is unknown."""
    found = [
        *_of_the_file(config),
        *_of_the_samples(config),
        *_of_the_strength(config, model),
        *_of_the_steps(config, dataset, model),
    ]
    if isinstance(config, ResolvedConfig) and dataset is not None and model is not None:
        found += _of_the_text_encoder(config, dataset, model)
    return tuple(found)


def _of_the_file(config: TrainingConfig) -> Iterator[str]:
    if config.task_type == "text-generation":
        return
    if config.algorithm == "dora":
        yield "algorithm = dora: fully applied only by ComfyUI and Forge; diffusers ignores its scales."
    if config.algorithm in ("loha", "lokr"):
        yield f"algorithm = {config.algorithm}: read by ComfyUI, A1111 and Forge, but not by diffusers."


def _of_the_samples(config: TrainingConfig) -> Iterator[str]:
    if found := comments(config.sample_prompts):
        yield f"sample_prompts: {counted(len(found), 'line')} with # in front ({listed(found)}) will not be drawn."


def _of_the_strength(config: TrainingConfig, model: ModelFacts | None) -> Iterator[str]:
    rank, alpha, is_text = config.lora_rank, config.lora_alpha, config.task_type == "text-generation"
    if rank is not None and rank >= (NEARLY_FULL_RANK_OF_TEXTS if is_text else NEARLY_FULL_RANK):
        ranks = "8 to 64" if is_text else "8 to 32"
        yield f"lora_rank = {rank}: close to full fine-tuning, and overfits small datasets. {ranks} is usual."
    if rank is not None and alpha is not None and config.algorithm != "rslora":
        ratio, most = alpha / rank, 2 if is_text else 1
        if not 0.5 <= ratio <= most:
            yield (
                f"lora_alpha = {alpha:g} with lora_rank = {rank}: the LoRA is scaled by alpha / rank = {ratio:.2g}. "
                f"{'1 to 2' if is_text else '0.5 to 1'} is usual."
            )
    if config.learning_rate is not None and model is not None:
        usual, _ = usual_learning_rate(config, model)
        times = config.learning_rate / usual
        named = OPTIMIZER_DEFAULTS[config.optimizer].title
        if times >= MANY_TIMES_THE_RATE:
            yield (
                f"learning_rate = {config.learning_rate:g}: {times:.0f} times the usual value for {named} on this "
                "model. If the loss becomes unstable or the samples fall apart, halve it."
            )


def _of_the_steps(config: TrainingConfig, dataset: DatasetFacts | None, model: ModelFacts | None) -> Iterator[str]:
    batch, accumulation, steps = config.batch_size, config.gradient_accumulation_steps, config.max_train_steps
    unit = "row" if config.task_type == "text-generation" else "image"
    if batch is not None and accumulation is not None and batch * accumulation < EFFECTIVE_BATCH:
        yield (
            f"batch_size = {batch} with gradient_accumulation_steps = {accumulation}: training on fewer than "
            f"{EFFECTIVE_BATCH} {unit}s per step is noisy. More accumulation helps without more memory: set "
            f"gradient_accumulation_steps = {-(-EFFECTIVE_BATCH // batch)}."
        )
    native = None if model is None else model.native_resolution
    small_model = native is not None and native < LEAST_RESOLUTION
    if config.resolution is not None and config.resolution < LEAST_RESOLUTION and not small_model:
        yield f"resolution = {config.resolution}: below {LEAST_RESOLUTION} pixels, images lose too much detail."
    if config.purpose == "quick_test":
        yield "purpose = quick_test: this run only shows that everything works; its LoRA is not meant for use."
    if dataset is not None and batch is not None:
        fullest, batches = max(dataset.bucket_sizes), dataset.batches_per_epoch(batch)
        each = dataset.samples_per_epoch / batches
        if each < HALF_FULL * batch:
            why = (
                _sharing(unit, len(dataset.bucket_sizes))
                if len(dataset.bucket_sizes) > 1
                else f"there are only {fullest} to show. A smaller batch_size is enough"
            )
            yield f"batch_size = {batch}: batches hold {each:.1f} {unit}s on average, because {why}."
    if dataset is not None and steps is not None and batch is not None and accumulation is not None:
        shown = steps * batch * accumulation * dataset.training_share / dataset.examples
        if shown >= (MANY_READINGS if unit == "row" else MANY_VIEWINGS):
            yield (
                f"Every {unit} is shown about {shown:.0f} times, which is enough to memorise many of them. More "
                f"{unit}s would help more than more steps."
            )


def _sharing(unit: str, shapes: int) -> str:
    """Say which examples share a batch, and what can be done about small batches."""
    if unit == "row":
        return (
            f"only rows of about the same length share a batch, and there are {shapes} lengths. A smaller batch_size "
            "with more gradient_accumulation_steps is as good"
        )
    return (
        f"only images of the same shape share a batch, and there are {shapes} shapes. Crop images to fewer shapes, or "
        "make up for it with gradient_accumulation_steps"
    )


def _of_the_text_encoder(config: ResolvedConfig, dataset: DatasetFacts, model: ModelFacts) -> Iterator[str]:
    if model.architecture not in CLIP_ARCHITECTURES or config.train_text_encoder or not dataset.trigger_word:
        return
    if config.purpose in ("character", "object", "concept"):
        yield (
            f'train_text_encoder is off, which is usually fine. Turn it on if "{dataset.trigger_word}" does not call '
            "up what was learned: it helps the model learn a new word, but needs more memory and time."
        )
