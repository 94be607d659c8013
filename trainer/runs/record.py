"""What makes a run the run that it is, and what became of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..files.atomic import write_whole
from ..models.initial_lora import InitialLora
from ..planning.plan import Plan
from .checkpoint import VERSION
from .paths import RunFiles

log = logging.getLogger(__name__)

FILE = "run.json"

MAY_CHANGE = frozenset(
    {
        "base_model",  # what it is counts, not where it lies
        "train_data_dir",
        "reg_data_dir",
        "metadata_path",
        "output_dir",
        "purpose",  # counts by the values that it chose
        "max_train_steps",
        "lr_warmup_steps",
        "validate_every_n_steps",
        "early_stopping_patience",
        "early_stopping_threshold",
        "measure",
        "sample_prompts",
        "sample_negative_prompt",
        "sample_every_n_steps",
        "sample_steps",
        "sample_cfg",
        "sample_sampler",
        "sample_scheduler",
        "gradient_checkpointing",
        "cache_size_gb",
        "save_precision",
        "save_steps",
        "checkpoints_kept",
        "resume_from_checkpoint",
        "memory",
        "allow_lower_resolution",
        "continue_from",  # by what the file holds
    }
)
"""Settings that change nothing of what is learned in a step, or only from now on: a run can go on with new ones."""


@dataclass(frozen=True)
class RunRecord:
    """
    Attributes:
        base: identity of model, text encoders and VAE.
        dataset: fingerprint of images and captions.
        settings: all that may not change, resolved; the name is that which was asked for.
        steps: how many it is to have.
        continued: hash of the LoRA file that it started from; or "".
        session: of its files.
        number: counts the starts of all runs of a folder. Times of files and clocks cannot be trusted with that.
        finished: whether it went to its end.
    """

    base: str
    dataset: str
    settings: Mapping[str, Any]
    steps: int
    session: str = ""
    number: int = 0
    finished: bool = False
    version: int = VERSION
    continued: str = ""

    @classmethod
    def of(cls, base: str, plan: Plan, initial: InitialLora | None, number: int) -> RunRecord:
        """Describe a run that is about to start.

        Args:
            base: the identity of the model, its text encoders and its VAE.
            plan: the dataset and the settings.
            initial: the LoRA that it starts from; None for a new one.
            number: counts the starts of all runs of a folder.
        """
        values = plan.resolved.values
        settings = json.loads(values.model_dump_json(exclude=set(MAY_CHANGE)))
        digest = "" if initial is None else initial.sha256
        return cls(base, plan.dataset.fingerprint, settings, values.max_train_steps, number=number, continued=digest)

    def differences(self, other: RunRecord) -> list[str]:
        """Why this run cannot go on where another was interrupted; nothing where it can."""
        found = []
        if other.version != self.version:
            found.append("the program has changed how it keeps the state of a run")
        if other.base != self.base:
            found.append("the base model, its text encoder, its VAE or a LoRA on it is another")
        if other.dataset != self.dataset:
            found.append("the images, the captions or the settings of the dataset are others")
        if other.continued != self.continued:
            found.append("continue_from is another LoRA, or only one of them had one")
        names = dict.fromkeys((*self.settings, *other.settings))
        before, now = other.settings, self.settings
        found += [
            f"{name} was {before.get(name)} and is {now.get(name)}"
            for name in names
            if before.get(name) != now.get(name)
        ]
        return found

    def write(self, files: RunFiles, *, finished: bool = False) -> None:
        """Into the run's folder.

        Raises:
            CrucibleError: the system cannot write it.
        """
        latest = replace(self, session=files.session, finished=finished)
        write_whole(files.folder / FILE, json.dumps(asdict(latest), indent=1).encode(), what="The record of the run")

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """The record in a run's folder; None where there is none that can be read."""
        try:
            return cls(**json.loads((folder / FILE).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read, so that run is not known again: %s", folder / FILE, error)
            return None


def known_runs(lora_folder: Path, runs_folder: Path) -> list[tuple[RunFiles, RunRecord]]:
    """All runs of a folder with a record, the one that was started last first."""
    read = ((path.parent, RunRecord.read(path.parent)) for path in sorted(runs_folder.glob(f"*/{FILE}")))
    found = [(folder, record) for folder, record in read if record is not None]
    found.sort(key=lambda one: one[1].number, reverse=True)
    return [(RunFiles.of(folder, lora_folder, record.session), record) for folder, record in found]


def lora_session(path: Path) -> str:
    """Which run a LoRA file is of, as its metadata say; empty for no file, or one that says nothing."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("ss_session_id", ""))
    except (OSError, SafetensorError):
        return ""
