"""The commands that train: demo, train and check.

Imports nothing but the standard library at its top, so that it can say which packages are missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from ..doctor.requirements import TORCH
from ..errors import CrucibleError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config import TrainingConfig
    from ..data.base import Dataset
    from ..events.step import StepReport
    from ..models.base import BaseModel
    from ..training.result import RunResult


def add_train_commands(commands: Any) -> None:
    """Add the commands to the command line.

    Args:
        commands: what `add_subparsers` returned.
    """
    demo = commands.add_parser("demo", help="train on the demo model and show what it learned (about a minute)")
    demo.add_argument("--output_dir", default="output", help="folder for the results (default: output)")
    demo.add_argument("--text", action="store_true", help="train the demo language model instead of the picture model")
    _add_retrain(demo)
    demo.set_defaults(command=_demo)

    train = commands.add_parser("train", help="train with the settings of a config file")
    _add_config(train)
    _add_retrain(train)
    train.set_defaults(command=_train)

    check = commands.add_parser("check", help="check a config file and its images or texts without training")
    _add_config(check)
    check.add_argument(
        "--clean", type=Path, metavar="FILE", help="write a cleaned copy of the rows of a language model to this file"
    )
    check.set_defaults(command=_check, needs=(TORCH,))


def _add_config(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("config_file", nargs="?", metavar="CONFIG.yaml")
    either.add_argument("--config", metavar="CONFIG.yaml")
    precision = parser.add_mutually_exclusive_group()
    for name in ("fp16", "bf16"):
        precision.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, help=f"the same as mixed_precision: {name}"
        )
    parser.add_argument(
        "--download", action="store_true", help="download the language model from the hub if it is not there"
    )


def _add_retrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retrain", action="store_true", help="train from scratch, even if the same run is finished or was interrupted"
    )


SAMPLE_SHOWN = 200
"""The most characters of a sample answer that are shown while training; all of it is in a file."""

SPINS = "10000"
"""How often a waiting thread of the CPU looks for work before it sleeps. Steps of the demo on two cores take as long as
with GNU OpenMP's own 300,000 on an idle machine, and 60 % of the time beside three busy processes. Not looking at all
(OMP_WAIT_POLICY=PASSIVE) is twice as fast again there, but takes three times as long on an idle machine."""


def _let_idle_threads_sleep() -> None:
    """Keep threads of the CPU that wait for others from using a core for long, which slows down all programs.

    GNU OpenMP reads this when torch is imported. With a graphics card the CPU has little to compute.
    """
    if shutil.which("nvidia-smi") is None and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _train(options: argparse.Namespace) -> None:
    _let_idle_threads_sleep()
    config, dataset = _config_and_dataset(options)
    result = _run(config, dataset, options.retrain, download=options.download)
    print(result.report)


def _check(options: argparse.Namespace) -> None:
    from ..files.atomic import require_writable
    from ..files.names import check_output_name
    from ..formats.adapter_folder import lora_path
    from ..formats.lora_file import read_lora
    from ..formats.lora_info import lora_info
    from ..planning.summary import summarise
    from ..runs.checkpoint import read_state
    from ..training.plan import plan_run
    from ..training.refusals import refuse_unsuitable

    config, dataset = _config_and_dataset(options)
    is_text = config.task_type == "text-generation"
    if options.clean is not None and not is_text:
        raise CrucibleError(
            f"--clean {options.clean} writes a copy of the rows of a language model, but this config trains images. "
            "Leave it out; what is wrong with images is in the report."
        )
    if options.clean is not None:
        from .texts import write_cleaned

        print(write_cleaned(config, options.clean.expanduser()) + "\n")
    model = _base_model(config, lambda: None, weights=False, download=options.download)
    dataset = model.prepare_dataset(dataset)
    print(_report(config, dataset, model))
    if config.continue_from:
        path = lora_path(Path(config.continue_from))
        tensors, metadata = read_lora(path)
        print(f"\nLoRA to continue from: {lora_info(tensors, path.name, metadata, path).text()}")
    check_output_name(config.output_name)
    plan = plan_run(model, dataset, config)
    _, room = refuse_unsuitable(model, plan, Path(config.output_dir).expanduser())
    if config.resume_from_checkpoint:
        read_state(Path(config.resume_from_checkpoint).expanduser())
    require_writable(Path(config.output_dir).expanduser(), "The LoRA or another file of its run")
    print("\nThe config file is valid.")
    warnings = (*model.warnings(), *room.warnings)
    made = plan.plan if is_text else None  # rows are rendered only once
    print("\n" + summarise(config, dataset, model.facts, warnings, plan=made).text)


def _report(config: TrainingConfig, dataset: Dataset, model: BaseModel) -> str:
    """Return the report on a dataset as the model reads it."""
    from ..data.images.dataset import ImageDataset
    from ..data.images.report import dataset_report
    from ..data.text.dataset import TextDataset
    from ..data.text.report import text_report

    if isinstance(dataset, TextDataset):
        return text_report(dataset).text()
    assert isinstance(dataset, ImageDataset)
    return dataset_report(dataset, resolution=config.resolution or model.facts.native_resolution).text()


def _config_and_dataset(options: argparse.Namespace) -> tuple[TrainingConfig, Dataset]:
    from ..config.yaml_file import checked, read_written
    from .task import require_task, with_task

    written, guess = with_task(read_written(options.config or options.config_file))
    if options.precision:
        written = written.replaced({"mixed_precision": options.precision})
    if guess:
        print(guess)
    config = checked(written)
    missing = [name for name in ("base_model", "train_data_dir") if getattr(config, name) is None]
    if missing:
        raise CrucibleError(
            f"The config file has no {' and no '.join(missing)}, so there is nothing to train on. Add "
            f"{' and '.join(f'`{name}: …`' for name in missing)}; the value `demo` stands for the model and the "
            "images that come with the package."
        )
    assert config.base_model is not None
    assert config.train_data_dir is not None
    require_task(config.task_type, config.base_model, config.train_data_dir)
    return config, _load(config)


def _load(config: TrainingConfig) -> Dataset:
    """Load the dataset of a config, with a progress bar for the images that are opened for the first time."""
    if config.task_type == "text-generation":
        from .texts import load_texts

        return load_texts(config)
    from tqdm import tqdm

    from ..data.cache import cache_folder
    from ..data.images.load import load_dataset

    facts = cache_folder(Path(config.output_dir).expanduser()) / "facts"
    with tqdm(total=0, desc="Checking", unit="image", dynamic_ncols=True, leave=False) as bar:

        def checked(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return load_dataset(config.data, facts_folder=facts, progress=checked)


def _base_model(
    config: TrainingConfig, check_interrupt: Callable[[], None], *, weights: bool = True, download: bool = False
) -> BaseModel:
    """Open the base model of a config, silencing the packages that read it.

    Args:
        check_interrupt: a function called before each batch; it may raise to stop.
        weights: whether the model will be trained. Without, it can only tell what it could be trained with.
        download: whether a language model may be downloaded.
    """
    if config.task_type == "text-generation":
        from .texts import language_model

        return language_model(config, check_interrupt, weights=weights, download=download)
    if download:
        raise CrucibleError(
            f"--download fetches language models only, but this config trains images on {config.base_model}. Download "
            "the model in diffusers' format yourself, set base_model to its folder, and leave --download out."
        )
    import transformers.utils.logging

    # Their messages concern parts that are not used here. Importing diffusers triggers some from transformers.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    import diffusers.utils.logging

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    from ..models.diffusers.model import DiffusersBaseModel

    assert config.base_model is not None
    return DiffusersBaseModel(config.base_model, check_interrupt, weights=weights)


def _run(config: TrainingConfig, dataset: Dataset, retrain: bool, *, download: bool = False) -> RunResult:
    """Train with a progress bar; the LoRA, and a folder of the same name with everything else, go to output_dir."""
    from tqdm import tqdm

    from ..events.callbacks import Callbacks
    from ..training.resume import train_or_resume
    from .interrupt import asked_to_stop

    folder = Path(config.output_dir).expanduser()
    with asked_to_stop() as check, tqdm(total=1, desc="Encoding", unit=dataset.unit, dynamic_ncols=True) as bar:
        base_model = _base_model(config, check, download=download)

        def preparing(done: int, total: int, _: str) -> None:
            check()
            bar.total, bar.n = total, done
            bar.refresh()

        def stepped(report: StepReport, steps: int) -> None:
            if bar.unit != "step":
                bar.unit, bar.initial = "step", report.step - 1
                bar.set_description("Training", refresh=False)
                bar.reset(total=steps)
                bar.n = report.step - 1
            bar.set_postfix(loss=f"{report.loss:.3f}", refresh=False)
            bar.update()

        def sampled(step: int, steps: int, samples: Image | tuple[str, ...]) -> None:
            if isinstance(samples, tuple) and samples:
                bar.write(f"Sample after step {step} of {steps}: {shorten(samples[-1], SAMPLE_SHOWN, placeholder='…')}")

        return train_or_resume(
            base_model, dataset, config, folder, folder, Callbacks(preparing, stepped, sampled), retrain=retrain
        )


def _demo(options: argparse.Namespace) -> None:
    _let_idle_threads_sleep()
    if options.text:
        _demo_of_texts(options)
        return
    from ..config import parse_config

    config = parse_config(
        {
            "base_model": "demo",
            "train_data_dir": "demo",
            "output_dir": options.output_dir,
            "output_name": "demo",
        }
    )
    print("Training a LoRA on the demo model: a new style for its coloured shapes.")
    result = _run(config, _load(config), options.retrain)
    print(result.report)
    from ..demo.showcase import measure  # after `_base_model`, which silences the packages

    outcome = measure(result.files.lora)
    picture = result.files.folder / "before_and_after.png"
    outcome.picture().save(picture)
    print(f"{outcome.text()}\nBefore and after: {picture}\nLoss: {result.files.folder / 'loss.png'}")


def _demo_of_texts(options: argparse.Namespace) -> None:
    from ..config import parse_config
    from ..demo.text import SETTINGS

    config = parse_config({**SETTINGS, "output_dir": options.output_dir, "output_name": "demo_text"})
    print("Training a LoRA on the demo language model: twelve new words, and how to draw what they stand for.")
    result = _run(config, _load(config), options.retrain)
    print(result.report)
    from ..demo.text.showcase import measure

    print(measure(result.files.folder / "adapter").text())
