"""Where a run writes: the LoRA, and a folder with everything else."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
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
from ..models.previews import Samples

REPORT, LOG, SAMPLES = "report.txt", "log.jsonl", "samples"


@dataclass(frozen=True)
class RunFiles:
    """A run's folder is its claim on the name: two runs never share one, and no LoRA is ever overwritten.

    Attributes:
        session: stands in the LoRA too, so that the run knows its own file from one that somebody else put there.
    """

    name: str
    lora: Path
    folder: Path
    session: str

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def cache(self) -> Path:
        """Where all runs keep what the frozen encoders made."""
        return cache_folder(self.folder.parent)

    @classmethod
    def claim(
        cls, name: str, lora_folder: Path, runs_folder: Path, is_listed: Callable[[str], bool] = nowhere
    ) -> RunFiles:
        """Create the folder of a run under `name`, or under `name_2`, … where that is taken.

        Args:
            is_listed: whether a LoRA of this file name is in another folder that counts.

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
        """Those of a run that has its folder."""
        return cls(folder.name, lora_folder / f"{folder.name}.safetensors", folder, session)

    def delete_unfinished(self) -> None:
        """Delete what was being written when a process of this run was killed. No other may be at it now."""
        delete_unfinished(self.lora.parent, self.lora.name)
        for folder in (self.folder, self.folder / SAMPLES):
            delete_unfinished(folder)

    def take_history(self, earlier: RunFiles) -> None:
        """Copy what another run logged and sampled, to go on from there."""
        for name in (LOG, SAMPLES):
            source = earlier.folder / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, self.folder / name)

    def give_up(self) -> None:
        """Free the name of a run that failed before it trained anything."""
        if not self.checkpoints.exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def write_config(self, config: TrainingConfig, warning: str = "") -> None:
        """Everything that is set, under `warning` as a comment."""
        values = config.model_dump(exclude_none=True)
        ordered = {name: values[name] for name in SETTINGS if name in values}
        text = yaml.safe_dump(ordered, allow_unicode=True, sort_keys=False)
        text = f"# {warning}\n{text}" if warning else text
        write_whole(self.folder / "config.yaml", text.encode(), what="The config")

    def write_samples(self, step: int, samples: Samples) -> None:
        """Write a round of samples, each as a file of its own: a PNG file or a text file."""
        for number, sample in enumerate(samples, start=1):
            name = f"{SAMPLES}/step_{step:06}_{number:02}"
            if isinstance(sample, str):
                write_whole(self.folder / f"{name}.txt", sample.encode(), what="The sample")
            else:
                self.write_picture(f"{name}.png", to_picture(sample))

    def write_picture(self, name: str, picture: Image.Image) -> None:
        """Write a PNG file into the folder.

        Raises:
            CrucibleError: the disk is full, or the system fails otherwise. As for the other `write_` methods.
        """
        content = BytesIO()
        picture.save(content, "PNG")
        write_whole(self.folder / name, content.getbuffer(), what="The picture")

    def read_samples(self) -> dict[int, Samples]:
        """Return the rounds of samples by their step, in order. Damaged files are left out."""
        rounds: dict[int, list[Tensor | str]] = {}
        for path in sorted((self.folder / SAMPLES).glob("step_*_*.*")):
            with suppress(OSError, SyntaxError, ValueError):  # a damaged PNG may be a SyntaxError
                sample = _read_sample(path)
                rounds.setdefault(int(path.stem.split("_")[1]), []).append(sample)
        return {step: _round(samples) for step, samples in sorted(rounds.items())}

    def write_report(self, text: str) -> None:
        write_whole(self.folder / REPORT, f"{text}\n".encode(), what="The report")

    def read_report(self) -> str:
        """Empty where somebody deleted it."""
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
    """Delete the folder of a process that was killed before it had written the first file of its run."""
    with suppress(OSError):
        if all(path.name.startswith(TEMPORARY) for path in folder.iterdir()):
            delete_unfinished(folder)
            folder.rmdir()
