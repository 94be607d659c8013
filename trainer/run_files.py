"""Where a run writes: the LoRA, and a folder with everything else."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from PIL import Image
from torch import Tensor

from .config import SETTINGS, TrainingConfig
from .data.cache import cache_folder
from .formats.output_name import check_output_name, unused_name
from .pictures import to_pixels

REPORT, LOG, SAMPLES = "report.txt", "log.jsonl", "samples"


@dataclass(frozen=True)
class RunFiles:
    """A run's folder is its claim on the name: two runs never share one, and no LoRA is ever overwritten."""

    name: str
    lora: Path
    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def cache(self) -> Path:
        """Where all runs keep what the frozen encoders made."""
        return cache_folder(self.folder.parent)

    @classmethod
    def claim(cls, name: str, lora_folder: Path, runs_folder: Path) -> RunFiles:
        """Create the folder of a run under `name`, or under `name_2`, … where that is taken.

        Raises:
            CrucibleError: no file can have this name.
        """

        def taken(candidate: str) -> bool:
            if (lora_folder / f"{candidate}.safetensors").exists():
                return True
            try:
                (runs_folder / candidate).mkdir(parents=True)
            except FileExistsError:
                return True
            return False

        name = unused_name(check_output_name(name), taken)
        return cls.of(runs_folder / name, lora_folder)

    @classmethod
    def of(cls, folder: Path, lora_folder: Path) -> RunFiles:
        """Those of a run that has its folder."""
        return cls(folder.name, lora_folder / f"{folder.name}.safetensors", folder)

    def take_history(self, earlier: RunFiles) -> None:
        """Copy what another run logged and sampled, to go on from there."""
        for name in (LOG, SAMPLES):
            source = earlier.folder / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name)
            elif source.exists():
                shutil.copy(source, self.folder / name)

    def give_up(self) -> None:
        """Free the name of a run that failed before it trained anything."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        self.folder.rmdir()

    def write_config(self, config: TrainingConfig, warning: str = "") -> None:
        """Everything that is set, under `warning` as a comment."""
        values = config.model_dump(exclude_none=True)
        ordered = {name: values[name] for name in SETTINGS if name in values}
        text = yaml.safe_dump(ordered, allow_unicode=True, sort_keys=False)
        comment = f"# {warning}\n" if warning else ""
        (self.folder / "config.yaml").write_text(comment + text, encoding="utf-8")

    def write_sample(self, step: int, prompt_number: int, picture: Image.Image) -> None:
        folder = self.folder / SAMPLES
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"step_{step:06}_{prompt_number:02}.png")

    def read_samples(self) -> dict[int, Tensor]:
        """By step, in their order: (prompts, height, width, 3) float32 in 0..1."""
        rounds: dict[int, list[Tensor]] = {}
        for path in sorted((self.folder / SAMPLES).glob("step_*_*.png")):
            with Image.open(path) as picture:
                rounds.setdefault(int(path.stem.split("_")[1]), []).append(to_pixels(picture.convert("RGB")))
        return {step: torch.stack(pictures) for step, pictures in sorted(rounds.items())}

    def write_report(self, text: str) -> None:
        (self.folder / REPORT).write_text(text + "\n", encoding="utf-8")

    def read_report(self) -> str:
        """Empty where somebody deleted it."""
        try:
            return (self.folder / REPORT).read_text(encoding="utf-8").rstrip("\n")
        except FileNotFoundError:
            return ""
