"""The preparation of a run: everything that needs the encoders is done once, before they are released."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..config import ResolvedConfig, TrainingConfig
from ..data.base import Dataset
from ..data.batch_sampler import BatchSampler
from ..data.cache import TensorCache
from ..distributed.processes import current
from ..evaluation.choose_evaluation import evaluation_of
from ..evaluation.result_evaluation import ResultEvaluation, is_measured
from ..evaluation.validation import Validation, prepare_validation
from ..events.callbacks import Callbacks
from ..hardware.out_of_memory import twice
from ..memory.storage import Room
from ..models.base import BaseModel
from ..models.examples import CachedExample
from ..models.initial_lora import DECIDED_BY_FILE, InitialLora
from ..models.previews import Sampling
from ..runs.paths import RunFiles
from ..runs.report import cache_text
from .plan import RunPlan
from .previews import sampling_of
from .refusals import refuse_unsuitable
from .regularization import with_own_answers


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to train.

    Attributes:
        base_model: the base model to train on.
        identity: the hash of the base model's weights.
        dataset: the dataset to train on.
        given: the settings as the user gave them.
        config: the settings, with every automatic value and the number of steps resolved.
        examples: the encoded examples of an epoch.
        batches: the batches that the examples are trained in.
        sampling: the settings of the samples that are drawn during training.
        validation: the measurement of the error; None if nothing is measured.
        evaluation: the measurement of what the LoRA does.
        initial: the LoRA that training starts from; None to start from zero.
        reasons: the reason for each value that was chosen automatically, by the name of the setting.
        notes: sentences for the report.
        room: the disk space and memory that the run needs.
        cache_line: the report line about the cache of encoded inputs.
    """

    base_model: BaseModel
    identity: str
    dataset: Dataset
    given: TrainingConfig
    config: ResolvedConfig
    examples: tuple[CachedExample, ...]
    batches: BatchSampler
    sampling: Sampling
    validation: Validation | None
    evaluation: ResultEvaluation
    initial: InitialLora | None
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    room: Room
    cache_line: str

    @property
    def config_to_write(self) -> ResolvedConfig:
        """The settings as they are written to the config file of the run."""
        config = self.config.model_copy(update={"train_data_dir": self.dataset.source})
        if self.initial is None:
            return config
        # Written as numbers, they would cause the initial LoRA to be resized.
        return config.model_copy(update={name: getattr(self.given, name) for name in DECIDED_BY_FILE})


def prepare(base_model: BaseModel, plan: RunPlan, files: RunFiles, callbacks: Callbacks) -> PreparedRun:
    """Encode examples and prompts, and release the encoders, inside the base model's session.

    What runs out of memory (OOM) is tried once more after memory has been freed.

    Raises:
        CrucibleError: an example cannot be encoded, or settings do not suit the base model.
    """
    config, controls, processes = plan.config, base_model.memory, current()
    chosen, room = refuse_unsuitable(base_model, plan, files.folder)
    reasons = plan.plan.resolved.reasons | chosen
    if plan.initial is not None:
        reasons.pop("target_modules", None)
    cache = TensorCache(files.cache, limit=int(config.cache_size_gb * 1e9))
    dataset, to_encode, notes = with_own_answers(base_model, plan.plan, plan.identity, cache, callbacks.preparing)

    def encode_examples() -> list[CachedExample]:
        dropout, encode_captions = config.caption_dropout_rate, not config.train_text_encoder
        return base_model.cache_inputs(to_encode, cache, dropout, encode_captions, callbacks.preparing)

    examples = controls.do_together(encode_examples)
    groups = [example.group for example in examples]
    batches = BatchSampler(groups, config.batch_size, config.gradient_accumulation_steps, config.seed)
    if plan.given.epochs:
        config = config.model_copy(update={"max_train_steps": plan.given.epochs * batches.steps_per_epoch})
    sampling = sampling_of(config, dataset)
    validation = None
    if dataset.validation_names or is_measured(config):
        validation = controls.do_together(
            lambda: prepare_validation(base_model, dataset, config, cache, callbacks.preparing)
        )
    evaluation = evaluation_of(base_model, dataset, config, sampling, validation)
    all_samplings = [sampling, *evaluation.samplings]
    if processes.is_main:  # which draws all samples
        controls.first_that_fits(twice(lambda: base_model.previewer.prepare(all_samplings))).required()
    base_model.release_encoders()
    return PreparedRun(
        base_model=base_model,
        identity=plan.identity,
        dataset=dataset,
        given=plan.given,
        config=config,
        examples=tuple(examples),
        batches=batches,
        sampling=sampling,
        validation=validation,
        evaluation=evaluation,
        initial=plan.initial,
        reasons=reasons,
        notes=(*notes, *plan.notes),
        room=room,
        cache_line=cache_text(cache),
    )
