"""The facts about its run that a LoRA file contains as metadata."""

from __future__ import annotations

import time

from .. import __version__
from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.batch_sampler import BatchSampler
from ..formats.metadata import TrainingFacts
from ..models.base import BaseModel


def lora_facts(
    name: str,
    session: str,
    steps: int,
    base_model: BaseModel,
    identity: str,
    dataset: Dataset,
    config: ResolvedConfig,
    batches: BatchSampler,
    *,
    trigger_word: str,
    optimizer: str,
    precision: str,
    started_at: float,
) -> TrainingFacts:
    """Gather the facts about its training that a LoRA file contains.

    Args:
        name: the name of the LoRA.
        session: the id of the run.
        steps: the number of steps done.
        base_model: the base model that the LoRA was trained on.
        identity: the hash of the base model's weights.
        dataset: the dataset that the LoRA was trained on.
        config: the settings of the run.
        batches: the batches of the run.
        trigger_word: the word that calls up what was learned, or "".
        optimizer: the full name of the optimizer's class.
        precision: the precision of the training: fp32, fp16 or bf16.
        started_at: when the run started, in Unix seconds.
    """
    return TrainingFacts(
        output_name=name,
        session=session,
        trigger_word=trigger_word,
        base_model_name=base_model.name,
        base_model_identity=identity,
        prediction_type=base_model.facts.prediction_type,
        algorithm=config.algorithm,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        learning_rate=config.learning_rate,
        text_encoder_learning_rate=config.text_encoder_learning_rate if config.train_text_encoder else None,
        lr_scheduler=config.lr_scheduler,
        lr_warmup_steps=config.lr_warmup_steps,
        optimizer=optimizer,
        max_grad_norm=config.max_grad_norm,
        steps=steps,
        max_train_steps=config.max_train_steps,
        epoch=steps // batches.steps_per_epoch,
        epochs=-(-config.max_train_steps // batches.steps_per_epoch),
        batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        gradient_checkpointing=config.gradient_checkpointing,
        mixed_precision=precision,
        seed=config.seed,
        resolution=config.resolution,
        dataset_name=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        captions=dataset.captions,
        caption_dropout_rate=config.caption_dropout_rate,
        unit=dataset.unit,
        examples=len(dataset.training_names),
        regularization_examples=len(dataset.regularization_names),
        prior_loss_weight=config.prior_loss_weight,
        objective=config,
        batches_per_epoch=batches.batches_per_epoch,
        started_at=started_at,
        finished_at=time.time(),
        version=__version__,
        config=config.model_dump(),
    )
