"""Writing of the trained adapters as LoRA files."""

from __future__ import annotations

import time
from pathlib import Path

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.batch_sampler import BatchSampler
from ..errors import CrucibleError
from ..evaluation.evaluator import Evaluator
from ..formats.lora_file import to_state_dict
from ..formats.lora_model import LoraModel
from ..formats.metadata import build_metadata
from ..formats.read_back import save_layers
from ..models.base import BaseModel
from ..models.initial_lora import InitialLora
from ..optim.engine import DTYPES
from .lora_facts import lora_facts
from .paths import RunFiles
from .report import SavedLora


class LoraWriter:
    """Writes the current and the best LoRA of a run.

    Args:
        adapters: the adapters that are trained.
        base_model: the base model that carries the adapters.
        identity: the hash of the base model's weights.
        dataset: the dataset that is trained.
        config: the settings of the run.
        batches: the batches of the run.
        files: the files of the run.
        evaluator: the evaluator, which keeps the best weights.
        precision: the precision of the training: fp32, fp16 or bf16.
        optimizer: the full name of the optimizer's class.
        initial: the LoRA that training started from; None if it started from zero.
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
        """Return the current LoRA, after `step` steps, as "lora" and, if an earlier one was better, that as "best"."""
        name, better = self._files.name, self._evaluator.better_step
        found = {"lora": self._lora(name, step)}
        if better is not None:
            with self._evaluator.best_weights():
                found["best"] = self._lora(name, better)
        return found

    def save(self, outcome: str, step: int) -> tuple[SavedLora, LoraModel]:
        """Save the best LoRA and, if that is not the current one, the current one as `last.safetensors`.

        The adapters get the weights of the file, rounded to its precision, so that the last samples show what the file
        does.

        Args:
            outcome: how the run ended, such as "finished".
            step: the number of steps done.

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
        try:
            beside = self._base_model.save_beside(files.adapter, adapters, self._config)
        except CrucibleError as error:  # the LoRA itself is saved
            beside = str(error)
        return SavedLora(outcome, files.lora, files.name, adapters.size, len(adapters), size, step, last, beside), lora

    def _write(self, path: Path, name: str, step: int) -> tuple[LoraModel, int]:
        lora, layers = self._lora(name, step), self._adapters.layers()
        self._adapters.round_to(DTYPES[self._config.save_precision])
        return lora, save_layers(path, layers, lora, lora.metadata, self._base_model.place_of)

    @property
    def _trigger_word(self) -> str:
        of_file = "" if self._initial is None else self._initial.trigger_word
        return self._dataset.trigger_word or of_file

    def _lora(self, name: str, step: int) -> LoraModel:
        """Return the adapters in the form of a LoRA file, with metadata that says they had `step` steps."""
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
        metadata = build_metadata(self._base_model.architecture, facts) | self._evaluator.metadata(self._dataset.unit)
        if self._initial is not None:
            metadata |= self._initial.metadata
        return LoraModel(tensors, name, metadata)
