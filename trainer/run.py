"""One training run, start to finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import __version__
from .adapters import AdapterSpec
from .base_models.base import DTYPES, BaseModel, Precision, Sampling
from .config import ResolvedConfig, TrainingConfig
from .config.layer_patterns import parse_patterns
from .data.buckets import Buckets
from .data.cache import TensorCache
from .data.dataset import Dataset
from .formats.lora_file import to_state_dict, write_lora
from .formats.lora_model import LoraModel
from .formats.metadata import TrainingFacts, build_metadata
from .guard.early_stop import StoppedEarly
from .guard.guard import Guard
from .guard.validation import Round
from .guard.verdict import Verdict
from .loop import train
from .optimization import Optimization
from .optimizers import parameter_groups
from .order import BatchOrder
from .pictures import side_by_side, to_picture
from .planning import Plan, make_plan
from .plots import can_plot, save_training_plot
from .report import SavedLora, cache_text, training_report
from .run_files import RunFiles
from .run_log import RunLog
from .step_report import StepReport

log = logging.getLogger(__name__)

SAMPLES_BY_DEFAULT = 2
"""Captions that are drawn as samples when the user names no prompts."""


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
    round: before the training, after each interval, at the end. `rounds` are those of the validation."""

    files: RunFiles
    lora: LoraModel = field(default_factory=lambda: LoraModel({}))
    losses: list[float] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    verdict: Verdict | None = None
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
        warnings = base_model.warnings()
        for warning in warnings:
            log.warning(warning)
        plan = make_plan(config, dataset, base_model.facts)
        plan = replace(plan, notes=(*warnings, *plan.notes))
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
        self.notes = plan.notes
        self.precision = precision
        self.hooks = hooks
        self.result = result
        self.reasons = plan.resolved.reasons | base_model.prepare_losses(config)
        self.started = time.time()
        self.sampling_seconds = 0.0
        self.sampling_steps = 0

        cache = TensorCache(result.files.cache, limit=int(config.cache_size_gb * 1e9))
        self.samples = base_model.cache_inputs(
            plan.samples, cache, config.caption_dropout_rate, hooks.preparing, config.train_text_encoder
        )
        groups = [sample.group for sample in self.samples]
        self.order = BatchOrder(groups, config.batch_size, config.gradient_accumulation_steps, config.seed)
        if epochs:
            config = config.model_copy(update={"max_train_steps": epochs * self.order.steps_per_epoch})
        self.config: ResolvedConfig = config
        self.sampling = _sampling(config, dataset)
        self.guard = Guard(base_model, dataset, config, self.sampling)
        self.guard.encode(cache, hooks.preparing)
        base_model.prepare_sampling([self.sampling, *self.guard.samplings.values()])
        base_model.release_encoders()
        self.cache_text = cache_text(cache)
        written = config.model_copy(update={"train_data_dir": dataset.source})
        result.files.write_config(written, dataset.not_in_folder)

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
            self.adapters = adapters
            adapters.initialise(config.seed)
            groups = parameter_groups(adapters, config)
            scaler = torch.amp.GradScaler(adapters.device.type, enabled=self.precision.compute is torch.float16)
            self.optimization = Optimization(groups, config, scaler)
            self._sample()
            self.guard.start(adapters, self.optimization.weights_for_use)
            self.training_started = time.time()
            self.log = RunLog(self.result.files.folder)
            try:
                train(self.guard.losses, self.optimization, self.samples, self.order, config, on_step=self._after_step)
            except StoppedEarly:
                pass
            except BaseException as stop:
                if self.result.losses:
                    # Cancel and Ctrl-C, unlike errors, are no Exceptions.
                    outcome = "stopped by an error" if isinstance(stop, Exception) else "cancelled"
                    with self.optimization.weights_for_use():
                        self._write_report(self._save(outcome), complete=False)
                    log.warning(self.result.report)
                raise
            finally:
                self.log.close()
                if self.result.losses and can_plot():
                    save_training_plot(self.log.path, self.result.files.folder / "loss.png", self.guard.rounds)
            with self.optimization.weights_for_use():
                saved = self._save("finished early" if self.guard.stopped_early else "finished")
                self._write_report(saved)
                base_model.verify(self.result.files.lora, len(adapters))
                self._sample()
                picture = self.result.files.folder / "measures.png"
                self.guard.measure_pictures(self.training_seconds, self.sampling_seconds / self.sampling_steps, picture)
            self._write_report(saved)

    def _after_step(self, report: StepReport) -> None:
        config = self.config
        self.result.losses.append(report.loss)
        self.log.write(report)
        self.hooks.stepped(report, config.max_train_steps)
        self.guard.after_step(report)
        if report.step % config.sample_every_n_steps == 0 and report.step < config.max_train_steps:
            with self.optimization.weights_for_use():
                self._sample()

    def _sample(self) -> None:
        started = time.monotonic()
        with self.adapters.without_dropout():
            pictures = self.base_model.sample(self.sampling)
        self.sampling_seconds += time.monotonic() - started
        self.sampling_steps += len(pictures) * self.sampling.steps
        self.result.samples.append(pictures)
        step = len(self.result.losses)
        for number, picture in enumerate(pictures, start=1):
            self.result.files.write_sample(step, number, to_picture(picture))
        self.hooks.sampled(step, self.config.max_train_steps, side_by_side(pictures))

    def _save(self, outcome: str) -> SavedLora:
        """Save the LoRA as it was best, and as it is beside it where that is not the same. It is rounded to the
        precision of the file, so that the last sample shows that."""
        self.training_seconds = time.time() - self.training_started
        files, better, last = self.result.files, self.guard.better_step, ""
        if better is not None:
            last_file = files.folder / "last.safetensors"
            self._write(last_file, f"{files.name} (last)", len(self.result.losses))
            last = f"the state after the last step is {last_file}"
            self.guard.go_back()
        step = better or len(self.result.losses)
        self.result.lora, size = self._write(files.lora, files.name, step)
        return SavedLora(outcome, files.lora, files.name, self.adapters.size, len(self.adapters), size, step, last)

    def _write(self, path: Path, name: str, step: int) -> tuple[LoraModel, int]:
        """Write the adapters as they are after `step` steps; round them to what the file holds."""
        dtype = DTYPES[self.config.save_precision]
        tensors = self.base_model.portable(to_state_dict(self.adapters.layers(), dtype))
        self.adapters.round_to(dtype)
        metadata = build_metadata(self.base_model.architecture, self._facts(name, step)) | self.guard.metadata()
        return LoraModel(tensors, name, metadata), write_lora(path, tensors, metadata)

    def _write_report(self, saved: SavedLora, complete: bool = True) -> None:
        self.result.rounds, self.result.verdict = self.guard.rounds, self.guard.verdict(complete)
        self.result.report = training_report(
            saved,
            self.base_model,
            self.dataset,
            self.config,
            precision=self.precision.name,
            losses=self.result.losses,
            seconds=self.training_seconds,
            cache_text=self.cache_text,
            watched=self.guard.lines(complete),
            reasons=self.reasons,
            notes=self.notes,
        )
        self.result.files.write_report(self.result.report)

    def _facts(self, name: str, steps: int) -> TrainingFacts:
        config, order = self.config, self.order
        return TrainingFacts(
            output_name=name,
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
            caption_dropout_rate=config.caption_dropout_rate,
            regularization_images=len(self.dataset.regularization),
            prior_loss_weight=config.prior_loss_weight,
            objective=config,
            batches_per_epoch=order.batches_per_epoch,
            started_at=self.started,
            finished_at=time.time(),
            version=__version__,
            config=config.model_dump(),
        )


def _class_name(one: object) -> str:
    return f"{type(one).__module__}.{type(one).__qualname__}"


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
