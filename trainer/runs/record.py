"""The record of a run, by which it is recognized when it is started again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..config import SETTINGS
from ..files.atomic import write_whole
from ..models.initial_lora import InitialLora
from ..planning.plan import Plan
from .checkpoint import VERSION
from .paths import RunFiles

log = logging.getLogger(__name__)

FILE = "run.json"
"""The name of the record's file in the folder of a run."""

MAY_CHANGE = frozenset(
    {
        "base_model",  # recognized by its weights, not by its path, and so are the files that belong to it
        "loader",
        "text_encoders",
        "clip_type",
        "vae",
        "train_data_dir",
        "reg_data_dir",
        "metadata_path",
        "output_dir",
        "purpose",  # recognized by the values that it chose
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
        "max_new_tokens",
        "gradient_checkpointing",
        "cache_size_gb",
        "save_precision",
        "save_steps",
        "save_every_n_epochs",
        "checkpoints_kept",
        "resume_from_checkpoint",
        "memory",
        "reserve_memory",
        "report_to",
        "allow_lower_resolution",
        "continue_from",  # recognized by the content of the file
    }
)
"""Settings that may change when a run is resumed: they do not affect what a step learns, or only future steps."""


@dataclass(frozen=True)
class RunRecord:
    """The facts that identify a run, and whether it is finished.

    Attributes:
        base: the identity of the base model, its text encoders and its VAE.
        dataset: the fingerprint of the dataset.
        settings: the resolved settings that may not change; `output_name` is the name that the user asked for.
        steps: the number of steps that the run is to be trained for.
        session: the id of the run, which its LoRA file contains too.
        number: the position of the run's last start among all starts in the same folder; clocks and file times are not
            reliable enough for this.
        finished: whether the run reached its end.
        version: the version of checkpoints that the run writes.
        continued: the hash of the LoRA file that training started from, or "".
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
            initial: the LoRA that training starts from; None to start from zero.
            number: the number of this start, one more than the highest of all runs in the same folder.
        """
        values = plan.resolved.values
        settings = json.loads(values.model_dump_json(exclude=set(MAY_CHANGE)))
        digest = "" if initial is None else initial.sha256
        return cls(base, plan.dataset.fingerprint, settings, values.max_train_steps, number=number, continued=digest)

    def differences(self, other: RunRecord, told: str = "{name} was {before} and is now {now}") -> list[str]:
        """Return the reasons why this run cannot resume another one; an empty list if it can.

        Args:
            other: the other run.
            told: the form of the reason that a setting is different.
        """
        found = []
        if other.version != self.version:
            found.append("it was saved by a version of LoRA Crucible with another checkpoint format")
        if other.base != self.base:
            is_text = self.settings.get("task_type") == "text-generation"
            parts = "" if is_text else ", its text encoder, its VAE or a LoRA applied to it"
            found.append(f"the base model{parts} is different")
        if other.dataset != self.dataset:
            found.append("the examples or the settings of the dataset are different")
        if other.continued != self.continued:
            found.append("continue_from is a different LoRA, or only one of the two runs has one")
        names = dict.fromkeys((*self.settings, *other.settings))
        before, now = ({name: _value(one.settings, name) for name in names} for one in (other, self))
        found += [
            told.format(name=name, before=before[name], now=now[name]) for name in names if before[name] != now[name]
        ]
        return found

    def write(self, files: RunFiles, *, finished: bool = False) -> None:
        """Write the record to the folder of the run.

        Args:
            files: the files of the run.
            finished: whether the run reached its end.

        Raises:
            CrucibleError: the file cannot be written.
        """
        latest = replace(self, session=files.session, finished=finished)
        write_whole(files.folder / FILE, json.dumps(asdict(latest), indent=1).encode(), what="The record of the run")

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """Return the record in a run's folder; None if it is missing or cannot be read."""
        try:
            return cls(**json.loads((folder / FILE).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read, so that run cannot be resumed: %s", folder / FILE, error)
            return None


def _value(settings: Mapping[str, Any], name: str) -> Any:
    """Return the value of a setting in a record; settings that did not exist at that time had their default."""
    return settings.get(name, SETTINGS[name].default if name in SETTINGS else None)


def known_runs(lora_folder: Path, runs_folder: Path) -> list[tuple[RunFiles, RunRecord]]:
    """Return all runs in a folder that have a record, the one started last first."""
    read = ((path.parent, RunRecord.read(path.parent)) for path in sorted(runs_folder.glob(f"*/{FILE}")))
    found = [(folder, record) for folder, record in read if record is not None]
    found.sort(key=lambda one: one[1].number, reverse=True)
    return [(RunFiles.of(folder, lora_folder, record.session), record) for folder, record in found]


def lora_session(path: Path) -> str:
    """Return the id of the run that a LoRA file comes from, from its metadata, or "" if that is unknown."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("ss_session_id", ""))
    except (OSError, SafetensorError):
        return ""
