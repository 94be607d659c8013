"""A run written as a folder instead of trained, so that another computer trains it from the command line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import ResolvedConfig, TrainingConfig
from ..config.widgets_and_yaml import OPEN_IN_DATASETS, to_yaml
from ..data.base import Dataset
from ..data.images.dataset import ImageDataset
from ..data.images.save import IMAGES, ROWS, SavedImage, rows_table, save_dataset
from ..errors import CrucibleError
from ..files.atomic import explained, write_whole
from ..messages.wording import counted

CONFIG, REPORT, INITIAL = "config.yaml", "saved_run.txt", "continue_from.safetensors"
"""The config file, the report and the LoRA to start from in the folder of a saved run."""

WHAT = "The saved run"
"""The subject of the first sentence of an error while writing."""


@dataclass(frozen=True)
class SavedRun:
    """A run that was written as a folder.

    Attributes:
        folder: the folder.
        text: the report: how to start the run elsewhere, what was written, and what was left out.
    """

    folder: Path
    text: str


def save_run(
    folder: Path,
    dataset: Dataset,
    config: ResolvedConfig,
    remarks: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> SavedRun:
    """Write a run as a folder: its config with every value decided, its images, masks and captions, and a report.

    The folder appears complete or not at all.

    Args:
        folder: the folder, which must not exist yet.
        dataset: the dataset of the run, with its examples for validation held out.
        config: the settings. `base_model` and what belongs to it are written as they are.
        remarks: sentences for the report about the base model.
        progress: a function called with (done, total) after every image; it may raise to stop.

    Raises:
        CrucibleError: the dataset is not one of images, the folder exists, or something cannot be read or written.
    """
    if not isinstance(dataset, ImageDataset):
        raise CrucibleError(
            f"The dataset {dataset.name} has no images, and only runs on images are saved as a folder. A run on texts "
            "needs its config file and its file of rows alone: copy both to the other computer."
        )
    if folder.exists():
        raise CrucibleError(
            f"The run cannot be saved as {folder}, because that exists, and nothing is ever overwritten. Choose a "
            "folder that does not exist, or delete it."
        )
    with explained(folder, WHAT):
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        text = _written(unfinished, folder, dataset, config, remarks, progress)
        with explained(folder, WHAT):
            unfinished.chmod(0o755)  # mkdtemp's are for their owner alone
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return SavedRun(folder, text)


def _written(
    unfinished: Path,
    folder: Path,
    dataset: ImageDataset,
    config: ResolvedConfig,
    remarks: Sequence[str],
    progress: Callable[[int, int], None],
) -> str:
    """Write everything, and return the report."""
    images, settings = save_dataset(dataset, unfinished, progress)
    assert config.resolution is not None
    write_whole(unfinished / ROWS, rows_table(images, dataset, config.resolution).encode(), what=WHAT)
    changes = {
        # What the dataset leaves open is decided in the config.
        **settings.model_dump(exclude=set(OPEN_IN_DATASETS)),
        "output_dir": TrainingConfig().output_dir,
        "resume_from_checkpoint": None,
    }
    if config.continue_from is not None:
        with explained(unfinished / INITIAL, "The LoRA to continue from"):
            shutil.copyfile(config.continue_from, unfinished / INITIAL)
        changes["continue_from"] = INITIAL
    yaml = to_yaml(config.model_copy(update=changes))
    write_whole(unfinished / CONFIG, f"# Paths count from the folder of this file.\n{yaml}".encode(), what=WHAT)
    text = "\n".join(_report(folder, dataset, images, config, remarks))
    write_whole(unfinished / REPORT, f"{text}\n".encode("utf-8", "backslashreplace"), what=WHAT)
    return text


def _report(
    folder: Path,
    dataset: ImageDataset,
    images: Sequence[SavedImage],
    config: ResolvedConfig,
    remarks: Sequence[str],
) -> list[str]:
    parts = {name: [one for one in images if one.split == name] for name in ("train", "validation", "regularization")}
    copied = sum(one.is_file for one in images)
    made = len(images) - copied
    lines = [
        f"Nothing was trained: the run {config.output_name} was saved as the folder {folder}.",
        "To train it, copy the folder to any computer with LoRA Crucible, and run there:",
        f"  python -m trainer train {folder.name}/{CONFIG}",
        "",
        f"Base model: {config.base_model}",
        *(f"  {name}: {value}" for name in ("text_encoders", "clip_type", "vae") if (value := getattr(config, name))),
        *(f"  {remark}" for remark in remarks),
        f"Images: {len(parts['train'])} to train, {len(parts['validation'])} held out for validation, "
        f"{len(parts['regularization'])} for regularization; {ROWS} lists their sizes, crops, masks and repeats",
        *([f"  {counted(copied, 'file')} of the dataset copied byte for byte"] if copied else []),
        *([f"  {counted(made, 'image')} of other nodes saved as PNG, without loss"] if made else []),
        f"Captions: {IMAGES}/metadata.jsonl, as they are trained, with trigger word, prefix and suffix",
        "Settings: every value that was on auto is written out, so that the run is the same on another card, except "
        "the precision, which depends on the card; remove a line to let its value be chosen anew.",
    ]
    if config.continue_from is not None:
        lines.append(f"LoRA to continue from: a copy of {Path(config.continue_from).name} as {INITIAL}")
    lines += ["", "Left out, and what else the check of the dataset found:"]
    for finding in dataset.findings:
        lines.append(f"- {finding.text()}")
        lines += [f"    {name}" for name in finding.images]
    if not dataset.findings:
        lines.append("  nothing")
    return lines
