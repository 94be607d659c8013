"""The paths that a run writes to: its LoRA file, and a folder with everything else."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
import yaml
from PIL import Image
from torch import Tensor

from ..config import SETTINGS, TrainingConfig
from ..data.cache import cache_folder
from ..files.atomic import TEMPORARY, delete_unfinished, write_whole
from ..files.names import check_output_name, nowhere, unused_name
from ..files.pictures import to_picture, to_pixels
from ..files.text import encoded
from ..models.previews import Samples

REPORT, LOG, SAMPLES = "report.txt", "log.jsonl", "samples"

PROMPTS = f"{SAMPLES}/prompts.json"
"""The file with the prompts of the samples, for samples that are texts."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run.

    The folder of a run reserves its name: two runs never share a folder, and no finished LoRA is ever overwritten.

    Attributes:
        name: the name of the run.
        lora: the path of the LoRA file.
        folder: the folder with everything else.
        session: the id of the run, which its LoRA file contains too, so that a run can recognize its own file.
    """

    name: str
    lora: Path
    folder: Path
    session: str

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The folder of the LoRA in the form of PEFT, for base models whose programs read that."""
        return self.folder / "adapter"

    @property
    def cache(self) -> Path:
        """The folder of the cache of encoded inputs, which all runs share."""
        return cache_folder(self.folder.parent)

    @classmethod
    def claim(
        cls, name: str, lora_folder: Path, runs_folder: Path, is_listed: Callable[[str], bool] = nowhere
    ) -> RunFiles:
        """Create the folder of a new run under `name`, or under `name_2`, `name_3`, … if that is taken.

        Args:
            name: the name that the user asked for.
            lora_folder: the folder for the LoRA file.
            runs_folder: the folder that holds one folder for each run.
            is_listed: a function that returns whether another folder that is searched for LoRAs has a file of this
                name.

        Raises:
            CrucibleError: no file can have this name.
        """

        def taken(candidate: str) -> bool:
            file = f"{candidate}.safetensors"
            if (lora_folder / file).exists() or is_listed(file):
                return True
            _clear(runs_folder / candidate)
            try:
                (runs_folder / candidate).mkdir(parents=True)
            except FileExistsError:
                return True
            return False

        name = unused_name(check_output_name(name), taken)
        return cls.of(runs_folder / name, lora_folder, str(secrets.randbits(32)))

    @classmethod
    def of(cls, folder: Path, lora_folder: Path, session: str) -> RunFiles:
        """Return the files of a run whose folder exists."""
        return cls(folder.name, lora_folder / f"{folder.name}.safetensors", folder, session)

    def delete_unfinished(self) -> None:
        """Delete files that a killed process of this run left unfinished. No other process may be training the run."""
        delete_unfinished(self.lora.parent, self.lora.name)
        for folder in (self.folder, self.folder / SAMPLES):
            delete_unfinished(folder)

    def take_history(self, earlier: RunFiles) -> None:
        """Copy the log and the samples of an earlier run that this one continues."""
        for name in (LOG, SAMPLES):
            source = earlier.folder / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, self.folder / name)

    def give_up(self) -> None:
        """Delete the folder of a run that failed before it trained anything, so that its name is free again."""
        if not self.checkpoints.exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def write_config(self, config: TrainingConfig, warning: str = "") -> None:
        """Write everything that is set and has a meaning for the run's task, under `warning` as a comment.

        The folder of the output is the one above the file, so that the file gives the same run wherever it is moved
        with its folder. The checkpoint that a run was resumed from is left out: the file is about all of the run.
        """
        values = config.model_dump(exclude_none=True, exclude={"resume_from_checkpoint"}) | {"output_dir": ".."}
        of_task = [name for name, setting in SETTINGS.items() if setting.task in (None, config.task_type)]
        ordered = {name: values[name] for name in of_task if name in values}
        text = yaml.safe_dump(ordered, allow_unicode=True, sort_keys=False)
        text = f"# {warning}\n{text}" if warning else text
        write_whole(self.folder / "config.yaml", encoded(text), what="The config")

    def write_samples(self, step: int, samples: Samples) -> None:
        """Write a round of samples, each to its own PNG or text file.

        Raises:
            CrucibleError: the disk is full, or the system reports another error.
        """
        for number, sample in enumerate(samples, start=1):
            name = f"{SAMPLES}/step_{step:06}_{number:02}"
            if isinstance(sample, str):
                write_whole(self.folder / f"{name}.txt", encoded(sample), what="The sample")
            else:
                self.write_picture(f"{name}.png", to_picture(sample))

    def write_shown(self, name: str, content: Image.Image | str) -> None:
        """Write an image or a text for the user into the folder.

        Raises:
            CrucibleError: the disk is full, or the system reports another error.
        """
        if isinstance(content, str):
            write_whole(self.folder / name, encoded(content), what="The text")
        else:
            self.write_picture(name, content)

    def write_picture(self, name: str, picture: Image.Image) -> None:
        """Write a PNG file into the folder.

        Raises:
            CrucibleError: the disk is full, or the system reports another error.
        """
        content = BytesIO()
        picture.save(content, "PNG")
        write_whole(self.folder / name, content.getbuffer(), what="The image")

    def read_samples(self) -> dict[int, Samples]:
        """Return the rounds of samples by step, in order. Damaged files are skipped."""
        rounds: dict[int, list[Tensor | str]] = {}
        for path in sorted((self.folder / SAMPLES).glob("step_*_*.*")):
            with suppress(OSError, SyntaxError, ValueError):  # a damaged PNG may be a SyntaxError
                sample = _read_sample(path)
                rounds.setdefault(int(path.stem.split("_")[1]), []).append(sample)
        return {step: _round(samples) for step, samples in sorted(rounds.items())}

    def write_prompts(self, prompts: Sequence[str]) -> None:
        """Write the prompts that samples answer, in the order of the samples of a round.

        Raises:
            CrucibleError: the disk is full, or the system reports another error.
        """
        content = json.dumps(list(prompts), ensure_ascii=False, indent=1)
        write_whole(self.folder / PROMPTS, encoded(f"{content}\n"), what="The prompts of the samples")

    def read_prompts(self) -> tuple[str, ...]:
        """Return the prompts that samples answer; empty for images, and if the file is missing or damaged."""
        try:
            return tuple(map(str, json.loads((self.folder / PROMPTS).read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            return ()

    def write_report(self, text: str) -> None:
        """Write the report.

        Raises:
            CrucibleError: the disk is full, or the system reports another error.
        """
        write_whole(self.folder / REPORT, encoded(f"{text}\n"), what="The report")

    def read_report(self) -> str:
        """Return the report, or "" if the file is missing."""
        try:
            return (self.folder / REPORT).read_text(encoding="utf-8", errors="replace").rstrip("\n")
        except FileNotFoundError:
            return ""


def _read_sample(path: Path) -> Tensor | str:
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8")
    with Image.open(path) as picture:
        return to_pixels(picture.convert("RGB"))


def _round(samples: list[Tensor | str]) -> Samples:
    texts = tuple(sample for sample in samples if isinstance(sample, str))
    return texts or torch.stack([sample for sample in samples if isinstance(sample, Tensor)])


def _clear(folder: Path) -> None:
    """Delete a run's folder if its process was killed before it had completed any file in it."""
    with suppress(OSError):
        if all(path.name.startswith(TEMPORARY) for path in folder.iterdir()):
            delete_unfinished(folder)
            folder.rmdir()
