"""Knows the last trainings again, so that none is done twice."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from .config import TrainingConfig
from .data.dataset import Dataset
from .run import RunResult

MOST = 4
"""Runs that are remembered. They hold on to their LoRAs and samples, not to the models."""


class LastRuns:
    """Results by what a run was made from.

    A host like ComfyUI goes by names and times of files: it starts a training anew when captions were written into
    the folder, though every caption is what it was before. A result counts while its LoRA is on disk.
    """

    def __init__(self) -> None:
        self._runs: deque[tuple[list[weakref.ref[Any]], tuple[Any, ...], RunResult]] = deque(maxlen=MOST)

    def find(self, models: Sequence[Any], dataset: Dataset, config: TrainingConfig, name: str) -> RunResult | None:
        """The result of a run on these very objects, and on images and captions of the same content."""
        key = _key(dataset, config, name)
        for references, known, result in self._runs:
            same = all(reference() is model for reference, model in zip(references, models, strict=True))
            if same and known == key and result.files.lora.is_file():
                return result
        return None

    def add(
        self, models: Sequence[Any], dataset: Dataset, config: TrainingConfig, name: str, result: RunResult
    ) -> None:
        self._runs.append((list(map(weakref.ref, models)), _key(dataset, config, name), result))


def _key(dataset: Dataset, config: TrainingConfig, name: str) -> tuple[Any, ...]:
    return dataset.fingerprint, config.model_dump_json(), name
