"""Writing what was trained as LoRA files."""

from __future__ import annotations

import time
from pathlib import Path

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.batch_sampler import BatchSampler
from ..evaluation.evaluator import Evaluator
from ..formats.lora_file import to_state_dict, write_lora
from ..formats.lora_model import LoraModel
from ..formats.metadata import build_metadata
from ..models.base import BaseModel
from ..models.initial_lora import InitialLora
from ..optim.engine import DTYPES
from .lora_facts import lora_facts
from .paths import RunFiles
from .report import SavedLora


class LoraWriter:
    """Writes the LoRA of a run as it is, and as it was best.

    Args:
        adapters: what is trained.
        base_model: the base model that carries the adapters.
        identity: the hash of its weights.
        dataset: the dataset.
        config: the settings of the run.
        batches: the batches of the run.
        files: where the LoRA is written.
        evaluator: knows the best weights.
        precision: the precision of the training.
        optimizer: the full name of the optimizer's class.
        initial: the LoRA that training started from; None for a new one.
    """

    def __init__(
        self,
        adapters: Adapters,
        base_model: BaseModel,
        identity: str,
        dataset: Dataset,
        config: ResolvedConfig,
        batches: BatchSampler,
        files: RunFiles,
        evaluator: Evaluator,
        precision: str,
        optimizer: str,
        initial: InitialLora | None,
    ) -> None:
        self._adapters, self._base_model, self._identity, self._dataset = adapters, base_model, identity, dataset
        self._config, self._batches, self._files, self._evaluator = config, batches, files, evaluator
        self._precision, self._optimizer, self._initial = precision, optimizer, initial
        self._started = time.time()

    def loras(self, step: int) -> dict[str, LoraModel]:
        """Return the LoRA as it is after `step` steps and, if that is another one, as it was best."""
        name, better = self._files.name, self._evaluator.better_step
        found = {"lora": self._lora(name, step)}
        if better is not None:
            with self._evaluator.best_weights():
                found["best"] = self._lora(name, better)
        return found

    def save(self, outcome: str, step: int) -> tuple[SavedLora, LoraModel]:
        """Save the LoRA as it was best and, if that is another one, as it is after `step` steps beside it.

        The adapters get the best weights, rounded to the precision of the file, so that the last samples show the file.

        Args:
            outcome: how the run ended, in words.

        Raises:
            CrucibleError: the disk is full, or writing fails for another reason.
        """
        files, adapters, better, last = self._files, self._adapters, self._evaluator.better_step, ""
        if better is not None:
            last_file = files.folder / "last.safetensors"
            self._write(last_file, f"{files.name} (last)", step)
            last = f"the state after the last step is {last_file}"
            self._evaluator.keep_best_weights()
            step = better
        lora, size = self._write(files.lora, files.name, step)
        return SavedLora(outcome, files.lora, files.name, adapters.size, len(adapters), size, step, last), lora

    def _write(self, path: Path, name: str, step: int) -> tuple[LoraModel, int]:
        lora = self._lora(name, step)
        self._adapters.round_to(DTYPES[self._config.save_precision])
        return lora, write_lora(path, lora, lora.metadata)

    @property
    def _trigger_word(self) -> str:
        of_file = "" if self._initial is None else self._initial.trigger_word
        return self._dataset.trigger_word or of_file

    def _lora(self, name: str, step: int) -> LoraModel:
        """Return the adapters, as they are after `step` steps, as a file has them."""
        dtype = DTYPES[self._config.save_precision]
        tensors = self._base_model.portable(to_state_dict(self._adapters.layers(), dtype))
        facts = lora_facts(
            name,
            self._files.session,
            step,
            self._base_model,
            self._identity,
            self._dataset,
            self._config,
            self._batches,
            trigger_word=self._trigger_word,
            optimizer=self._optimizer,
            precision=self._precision,
            started_at=self._started,
        )
        metadata = build_metadata(self._base_model.architecture, facts) | self._evaluator.metadata()
        if self._initial is not None:
            metadata |= self._initial.metadata
        return LoraModel(tensors, name, metadata)
