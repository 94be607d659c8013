"""Writes what was trained as LoRA files."""

from __future__ import annotations

import time
from pathlib import Path

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.batch_sampler import BatchSampler
from ..data.images.dataset import Dataset
from ..evaluation.evaluator import Evaluator
from ..formats.lora_file import to_state_dict, write_lora
from ..formats.lora_model import LoraModel
from ..formats.metadata import build_metadata
from ..models.base import DTYPES, BaseModel, Precision
from ..models.initial_lora import InitialLora
from .lora_facts import lora_facts
from .paths import RunFiles
from .report import SavedLora


class LoraSaver:
    """
    Args:
        identity: of the base model.
        precision: of the computation.
        continued: what the run started from; None for nothing.
    """

    def __init__(
        self,
        base_model: BaseModel,
        identity: str,
        dataset: Dataset,
        config: ResolvedConfig,
        order: BatchSampler,
        files: RunFiles,
        guard: Evaluator,
        precision: Precision,
        continued: InitialLora | None,
    ) -> None:
        self._base_model, self._identity, self._dataset = base_model, identity, dataset
        self._config, self._order, self._precision = config, order, precision
        self._files, self._guard, self._continued = files, guard, continued
        self._started = time.time()

    def start(self, adapters: Adapters, optimizer: str) -> None:
        """Save these adapters from now on.

        Args:
            optimizer: name of its class.
        """
        self._adapters, self._optimizer = adapters, optimizer

    def loras(self, step: int) -> dict[str, LoraModel]:
        """The LoRA as it is after `step` steps, and where that is another, as it was best."""
        name, better = self._files.name, self._guard.better_step
        found = {"lora": self._lora(name, step)}
        if better is not None:
            with self._guard.best_weights():
                found["best"] = self._lora(name, better)
        return found

    def save(self, outcome: str, step: int) -> tuple[SavedLora, LoraModel]:
        """Save the LoRA as it was best, and as it is after `step` steps beside it where that is not the same. The
        adapters are rounded to the precision of the file, so that the last sample shows that.

        Args:
            outcome: how the run ended, in words.

        Raises:
            CrucibleError: the disk is full, or the system fails otherwise.
        """
        files, adapters, better, last = self._files, self._adapters, self._guard.better_step, ""
        if better is not None:
            last_file = files.folder / "last.safetensors"
            self._write(last_file, f"{files.name} (last)", step)
            last = f"the state after the last step is {last_file}"
            self._guard.go_back()
            step = better
        lora, size = self._write(files.lora, files.name, step)
        return SavedLora(outcome, files.lora, files.name, adapters.size, len(adapters), size, step, last), lora

    def _write(self, path: Path, name: str, step: int) -> tuple[LoraModel, int]:
        lora = self._lora(name, step)
        self._adapters.round_to(DTYPES[self._config.save_precision])
        return lora, write_lora(path, lora, lora.metadata)

    @property
    def _trigger_word(self) -> str:
        of_file = "" if self._continued is None else self._continued.trigger_word
        return self._dataset.trigger_word or of_file

    def _lora(self, name: str, step: int) -> LoraModel:
        """The adapters as they are after `step` steps, as in a file."""
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
            self._order,
            trigger_word=self._trigger_word,
            optimizer=self._optimizer,
            precision=self._precision.name,
            started_at=self._started,
        )
        metadata = build_metadata(self._base_model.architecture, facts) | self._guard.metadata()
        if self._continued is not None:
            metadata |= self._continued.metadata
        return LoraModel(tensors, name, metadata)
