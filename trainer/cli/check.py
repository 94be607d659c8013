"""The command `python -m trainer check`, which reports on a config and its data without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor.requirements import TORCH
from ..errors import CrucibleError, errors_about
from .config_options import add_config_options, config_and_dataset
from .exit_status import Outcome
from .opening import open_base_model

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset
    from ..models.base import BaseModel


def add_check_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    check = commands.add_parser("check", help="check a config file and its images or texts without training")
    add_config_options(check)
    check.add_argument(
        "--clean", type=Path, metavar="FILE", help="write a cleaned copy of the rows of a language model to this file"
    )
    check.set_defaults(command=_check, needs=(TORCH,))


def _check(options: argparse.Namespace) -> Outcome:
    from ..files.atomic import require_writable
    from ..files.names import check_output_name
    from ..formats.adapter_folder import lora_path
    from ..formats.lora_file import read_lora
    from ..formats.lora_info import lora_info
    from ..planning.summary import summarise
    from ..runs.checkpoint import read_state
    from ..training.plan import plan_run
    from ..training.refusals import refuse_unsuitable

    config, dataset = config_and_dataset(options)
    is_text = config.task_type == "text-generation"
    if options.clean is not None and not is_text:
        raise CrucibleError(
            f"--clean {options.clean} writes a copy of the rows of a language model, but this config trains images. "
            "Leave it out; what is wrong with images is in the report.",
            "settings",
        )
    if options.clean is not None:
        from .texts import write_cleaned

        with errors_about("data"):
            print(write_cleaned(config, options.clean.expanduser()) + "\n")
    model = open_base_model(config, lambda: None, weights=False, download=options.download)
    with errors_about("data"):
        dataset = model.prepare_dataset(dataset)
        report = _report(config, dataset, model)
    print(report)
    if config.continue_from:
        path = lora_path(Path(config.continue_from))
        with errors_about("model"):
            tensors, metadata = read_lora(path)
        print(f"\nLoRA to continue from: {lora_info(tensors, path.name, metadata, path).text()}")
    with errors_about("settings"):
        check_output_name(config.output_name)
    plan = plan_run(model, dataset, config)
    _, room = refuse_unsuitable(model, plan, Path(config.output_dir).expanduser())
    if config.resume_from_checkpoint:
        with errors_about("settings"):
            read_state(Path(config.resume_from_checkpoint).expanduser())
    require_writable(Path(config.output_dir).expanduser(), "The LoRA or another file of its run")
    print("\nThe config file is valid.")
    warnings = (*model.warnings(), *room.warnings)
    made = plan.plan if is_text else None  # rows are rendered only once
    summary = summarise(config, dataset, model.facts, warnings, plan=made)
    print("\n" + summary.text)
    return Outcome(
        {
            "valid": True,
            "model": model.name,
            "architecture": model.architecture.name,
            "dataset": dataset.name,
            "report": report,
            "settings": plan.config.model_dump(mode="json"),
            "reasons": dict(plan.plan.resolved.reasons),
            "notes": list(plan.notes),
            "warnings": list(warnings),
        }
    )


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
