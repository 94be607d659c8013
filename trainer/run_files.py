"""Where a run writes: the LoRA, and a folder with everything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image

from .config import SETTINGS, TrainingConfig
from .data.cache import cache_folder
from .formats.output_name import check_output_name, unused_name


@dataclass(frozen=True)
class RunFiles:
    """A run's folder is its claim on the name: two runs never share one, and no LoRA is ever overwritten."""

    name: str
    lora: Path
    folder: Path

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
        return cls(name, lora_folder / f"{name}.safetensors", runs_folder / name)

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
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"step_{step:06}_{prompt_number:02}.png")

    def write_report(self, text: str) -> None:
        (self.folder / "report.txt").write_text(text + "\n", encoding="utf-8")
