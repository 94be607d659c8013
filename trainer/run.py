"""One training run, start to finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from . import __version__
from .adapters import Adapters, AdapterSpec
from .base_models.base import BaseModel, Precision, Sampling
from .config import ResolvedConfig, TrainingConfig
from .config.layer_patterns import parse_patterns
from .data.buckets import Buckets
from .data.cache import TensorCache
from .data.dataset import Dataset
from .formats.lora_file import size_text, to_state_dict, trained_parameters, write_lora
from .formats.lora_model import LoraModel
from .formats.metadata import TrainingFacts, build_metadata
from .loop import train
from .optimization import Optimization
from .optimizers import parameter_groups
from .order import BatchOrder
from .pictures import side_by_side, to_picture
from .planning import Plan, make_plan, note_lines
from .run_files import RunFiles
from .run_log import RunLog
from .step_report import StepReport

log = logging.getLogger(__name__)

SAMPLES_BY_DEFAULT = 2
"""Captions that are drawn as samples when the user names no prompts."""

SAVE_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Hooks:
    """How a run talks to whoever started it. Each may raise to stop the run, which then keeps what was trained."""

    preparing: Callable[[int, int, str], None] = lambda done, total, what: None
    """(images done, of how many, what is done with them)"""
    stepped: Callable[[StepReport, int], None] = lambda report, steps: None
    """(the step, of how many)"""
    sampled: Callable[[int, int, Image.Image], None] = lambda step, steps, picture: None
    """(after which step, of how many, the samples side by side)"""


@dataclass
class RunResult:
    """What a run made: `losses` has one value per step; `samples` holds (prompts, height, width, 3) in 0..1 for each
    round: before the training, after each interval, at the end."""

    files: RunFiles
    lora: LoraModel = field(default_factory=lambda: LoraModel({}))
    losses: list[float] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    report: str = ""


def run_training(
    base_model: BaseModel, dataset: Dataset, config: TrainingConfig, files: RunFiles, hooks: Hooks | None = None
) -> RunResult:
    """Train a LoRA, save it, and read the file back through the base model's loader.

    Whatever stops the run after its first step (Cancel, an error, Ctrl-C), the LoRA so far is saved under the run's
    name before the exception goes on. A run that is stopped earlier leaves no file.

    Raises:
        CrucibleError: settings that fit neither model nor data, or a file that cannot be written.
    """
    result = RunResult(files)
    try:
        dataset.require_trainable()
        for warning in base_model.warnings():
            log.warning(warning)
        plan = make_plan(config, dataset, base_model.facts)
        with base_model.session(config.mixed_precision) as precision, torch.random.fork_rng():
            _Training(base_model, plan, config.epochs, precision, hooks or Hooks(), result).train()
    except BaseException:  # ComfyUI's Cancel and Ctrl-C are no Exceptions
        if not result.losses:
            files.give_up()
        raise
    return result


class _Training:
    """The part of a run that happens in the base model's session."""

    def __init__(
        self,
        base_model: BaseModel,
        plan: Plan,
        epochs: int | None,
        precision: Precision,
        hooks: Hooks,
        result: RunResult,
    ) -> None:
        config, dataset = plan.resolved.values, plan.dataset
        self.base_model = base_model
        self.dataset = dataset
        self.notes = (*base_model.warnings(), *plan.notes)
        self.precision = precision
        self.hooks = hooks
        self.result = result
        self.reasons = plan.resolved.reasons | base_model.prepare_losses(config)
        self.started = time.time()

        cache = TensorCache(result.files.cache, limit=int(config.cache_size_gb * 1e9))
        self.samples = base_model.cache_inputs(
            plan.samples, cache, config.caption_dropout_rate, hooks.preparing, config.train_text_encoder
        )
        self.cache_text = _cache_text(cache)
        base_model.prepare_sampling(_sampling(config, dataset))
        base_model.release_encoders()
        groups = [sample.group for sample in self.samples]
        self.order = BatchOrder(groups, config.batch_size, config.gradient_accumulation_steps, config.seed)
        if epochs:
            config = config.model_copy(update={"max_train_steps": epochs * self.order.steps_per_epoch})
        self.config: ResolvedConfig = config
        result.files.write_config(config.model_copy(update={"train_data_dir": dataset.source}))

    def train(self) -> None:
        base_model, config = self.base_model, self.config
        spec = AdapterSpec(
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
            config.target_modules,
            config.algorithm,
            parse_patterns(config.layer_patterns),
            config.train_text_encoder,
        )
        with base_model.attached(spec, config.gradient_checkpointing) as adapters:
            adapters.initialise(config.seed)
            groups = parameter_groups(adapters, config)
            scaler = torch.amp.GradScaler(adapters.device.type, enabled=self.precision.compute is torch.float16)
            self.optimization = Optimization(groups, config, scaler)
            self._sample()
            self.training_started = time.time()
            self.log = RunLog(self.result.files.folder)
            try:
                train(base_model.losses, self.optimization, self.samples, self.order, config, on_step=self._after_step)
            except BaseException as stop:
                if self.result.losses:
                    with self.optimization.weights_for_use():
                        # Cancel and Ctrl-C, unlike errors, are no Exceptions.
                        self._save(adapters, "stopped by an error" if isinstance(stop, Exception) else "cancelled")
                    log.warning(self.result.report)
                raise
            finally:
                self.log.close()
            with self.optimization.weights_for_use():
                self._save(adapters, "finished")
                base_model.verify(self.result.files.lora, len(adapters))
                self._sample()

    def _after_step(self, report: StepReport) -> None:
        config = self.config
        self.result.losses.append(report.loss)
        self.log.write(report)
        self.hooks.stepped(report, config.max_train_steps)
        if report.step % config.sample_every_n_steps == 0 and report.step < config.max_train_steps:
            with self.optimization.weights_for_use():
                self._sample()

    def _sample(self) -> None:
        pictures = self.base_model.sample()
        self.result.samples.append(pictures)
        step = len(self.result.losses)
        for number, picture in enumerate(pictures, start=1):
            self.result.files.write_sample(step, number, to_picture(picture))
        self.hooks.sampled(step, self.config.max_train_steps, side_by_side(pictures))

    def _save(self, adapters: Adapters, outcome: str) -> None:
        """Save the LoRA as it is; it is rounded to the precision of the file, so that the last sample shows that."""
        dtype = SAVE_DTYPES[self.config.save_precision]
        tensors = to_state_dict(adapters.layers(), dtype)
        adapters.round_to(dtype)
        metadata = build_metadata(self.base_model.architecture, self._facts())
        files = self.result.files
        size = write_lora(files.lora, tensors, metadata)
        self.result.lora = LoraModel(tensors, files.name, metadata)
        self.result.report = self._report(outcome, len(adapters), size)
        files.write_report(self.result.report)

    def _facts(self) -> TrainingFacts:
        config, order, steps = self.config, self.order, len(self.result.losses)
        return TrainingFacts(
            output_name=self.result.files.name,
            trigger_word=self.dataset.trigger_word,
            base_model_name=self.base_model.name,
            base_model_identity=self.base_model.identity(),
            prediction_type=self.base_model.prediction_type,
            algorithm=config.algorithm,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            learning_rate=config.learning_rate,
            text_encoder_learning_rate=config.text_encoder_learning_rate if config.train_text_encoder else None,
            lr_scheduler=config.lr_scheduler,
            lr_warmup_steps=config.lr_warmup_steps,
            optimizer=_class_name(self.optimization.optimizer),
            max_grad_norm=config.max_grad_norm,
            steps=steps,
            max_train_steps=config.max_train_steps,
            epoch=steps // order.steps_per_epoch,
            epochs=-(-config.max_train_steps // order.steps_per_epoch),
            batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            gradient_checkpointing=config.gradient_checkpointing,
            mixed_precision=self.precision.name,
            seed=config.seed,
            resolution=config.resolution,
            dataset_name=self.dataset.name,
            dataset_fingerprint=self.dataset.fingerprint,
            captions=tuple(image.caption for image in self.dataset.images),
            batches_per_epoch=order.batches_per_epoch,
            started_at=self.started,
            finished_at=time.time(),
            version=__version__,
            config=config.model_dump(),
        )

    def _report(self, outcome: str, layers: int, size: int) -> str:
        config, losses, files = self.config, self.result.losses, self.result.files
        seconds = time.time() - self.training_started
        tenth = max(1, len(losses) // 10)
        trigger = f', trigger word "{self.dataset.trigger_word}"' if self.dataset.trigger_word else ""
        lines = [
            f"{files.name}: {outcome} after {len(losses)} of {config.max_train_steps} steps in {seconds:.0f} s "
            f"({len(losses) / seconds:.2f} steps/s with samples), {self.precision.name}",
            f"File: {files.lora} ({size_text(size)}, {config.save_precision})",
            f"Trained: {trained_parameters(self.result.lora):,} parameters in {layers} layers "
            f"({config.target_modules}), rank {config.lora_rank}, alpha {config.lora_alpha:g}",
            f"Base model: {self.base_model.name} ({self.base_model.architecture.name})",
            f"Dataset: {self.dataset.name}, {len(self.dataset.images)} images at {config.resolution} px{trigger}",
            self.cache_text,
            f"Loss: {sum(losses[:tenth]) / tenth:.4f} in the first tenth of the steps, "
            f"{sum(losses[-tenth:]) / tenth:.4f} in the last",
        ]
        if self.reasons:
            lines.append("Chosen automatically:")
            lines += [f"  {name} = {reason}" for name, reason in self.reasons.items()]
        lines += note_lines(self.notes)
        return "\n".join(lines)


def _class_name(one: object) -> str:
    return f"{type(one).__module__}.{type(one).__qualname__}"


def _cache_text(cache: TensorCache) -> str:
    size = cache.clean()
    return (
        f"Cache: {cache.made} encoded, {cache.found} found, {size_text(size)} of {size_text(cache.limit)} used in "
        f"{cache.folder}"
    )


def _sampling(config: ResolvedConfig, dataset: Dataset) -> Sampling:
    """Samples are square, of the training's resolution, rounded as its images are."""
    prompts = [line.strip() for line in config.sample_prompts.splitlines() if line.strip()]
    if not prompts:
        captions = dict.fromkeys(image.caption for image in dataset.images)
        prompts = list(captions)[:SAMPLES_BY_DEFAULT]
    width, height = Buckets.of(config, config.resolution).size(config.resolution, config.resolution)
    return Sampling(
        prompts=tuple(prompts),
        width=width,
        height=height,
        seed=config.seed,
        steps=config.sample_steps,
        cfg=config.sample_cfg,
        sampler=config.sample_sampler,
        scheduler=config.sample_scheduler,
        negative=config.sample_negative_prompt,
    )
