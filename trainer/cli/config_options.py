"""The options that name a config file and override it, and what they are read to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CrucibleError, errors_about
from .comfyui import enter_comfyui
from .opening import _load

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset


def add_config_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the options that name a config file and override it.

    Args:
        parser: the parser of the command.
        several: whether more than one config can be given.
    """
    parser.set_defaults(before=enter_comfyui)
    parser.add_argument(
        "config_files",
        nargs="*" if several else "?",
        metavar="CONFIG.yaml",
        default=[],
        help="the config file" + ", or several that are trained one after the other" * several,
    )
    parser.add_argument("--config", metavar="CONFIG.yaml", help="the same as CONFIG.yaml without an option")
    parser.add_argument(
        "--set",
        dest="set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting that takes precedence over the file; may be repeated (train --help lists all)",
    )
    precision = parser.add_mutually_exclusive_group()
    for name in ("fp16", "bf16"):
        precision.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, help=f"the same as mixed_precision: {name}"
        )
    parser.add_argument(
        "--reserve_memory", metavar="GB", help="memory to leave free for other programs, the same as reserve_memory: GB"
    )
    parser.add_argument("--download", action="store_true", help="download the model from the hub if it is not there")


def configs_of(options: argparse.Namespace) -> list[str]:
    """Return the config files that the options name, at least one.

    Raises:
        CrucibleError: there is none, or one in either way.
    """
    files = options.config_files if isinstance(options.config_files, list) else [options.config_files]
    if options.config is not None and files:
        raise CrucibleError(
            f"Both {files[0]} and --config {options.config} name a config, so it is not known which to train. Keep "
            "one of them.",
            "settings",
        )
    if options.config is None and not files:
        raise CrucibleError(
            "No config file was named, so there are no settings to train with. Name one "
            "after the command, for example output/demo/config.yaml, which the command demo writes.",
            "settings",
        )
    return files or [options.config]


def arguments_of(options: argparse.Namespace) -> list[str]:
    """Return the options as they are written on a command line, without the config files."""
    given = [f"--set={text}" for text in options.set]
    given += [f"--{options.precision}"] if options.precision else []
    given += [f"--reserve_memory={options.reserve_memory}"] if options.reserve_memory is not None else []
    return given + ["--download"] * options.download


def read_config_of(options: argparse.Namespace) -> tuple[TrainingConfig, list[str]]:
    """Read the single config that the options name, with what else they say.

    Returns:
        The config, and sentences for the user about how it was read.

    Raises:
        CrucibleError: the config cannot be read.
    """
    from ..config.yaml_file import checked, read_written
    from .task import with_task

    with errors_about("settings"):
        (file,) = configs_of(options)
        written, guess = with_task(read_written(file).overridden(_overrides(options), Path.cwd()))
        notes = list(filter(None, (guess, *written.notes)))
        try:
            config = checked(written)
        except CrucibleError as error:
            raise CrucibleError("\n".join([*notes, str(error)]), error.kind) from error
        return config, [*notes, *filter(None, [_slow_on_a_cpu(config.mixed_precision)])]


def config_and_dataset(options: argparse.Namespace) -> tuple[TrainingConfig, Dataset]:
    """Read the config that the options name, and load its dataset.

    Raises:
        CrucibleError: the config or its dataset cannot be read, or they lack something.
    """
    from .task import require_task

    config, notes = read_config_of(options)
    for line in notes:
        print(line)
    missing = [name for name in ("base_model", "train_data_dir") if getattr(config, name) is None]
    if missing:
        raise CrucibleError(
            f"The config file has no {' and no '.join(missing)}, so there is nothing to train on. Add "
            f"{' and '.join(f'`{name}: …`' for name in missing)}; the value `demo` stands for the model and the "
            "images that come with the package.",
            "settings",
        )
    assert config.base_model is not None
    assert config.train_data_dir is not None
    with errors_about("settings"):
        require_task(config.task_type, config.base_model, config.train_data_dir)
    with errors_about("data"):
        return config, _load(config)


def _overrides(options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Return the option and the value of each setting that is given on the command line."""
    found = read_pairs(options.set)
    for name, option, value in (
        ("mixed_precision", f"--{options.precision}", options.precision),
        ("reserve_memory", "--reserve_memory", options.reserve_memory),
    ):
        if value is not None:
            if name in found:
                raise CrucibleError(
                    f"{option} and --set {name} are both given, and they say something about the same setting. Keep "
                    "one of them."
                )
            found[name] = option, value
    return found


def read_pairs(texts: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Read what was given to `--set`, as the option and the value of each key.

    Raises:
        CrucibleError: a text is no key and value, or a key is given twice.
    """
    found: dict[str, tuple[str, str]] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise CrucibleError(
                f"--set {text} is not a setting with a value, so it is not known what to change. Write the key, an "
                "equals sign and the value, without spaces around it: --set lora_rank=16."
            )
        if key in found:
            raise CrucibleError(
                f"--set gives {key} twice ({found[key][1]} and {value}), and only one of them can be meant. Keep one."
            )
        found[key] = "--set", value
    return found


def _slow_on_a_cpu(precision: str) -> str:
    """Return what to know about a 16-bit precision on a computer without a graphics card, or ""."""
    import torch

    if precision != "fp16" or torch.accelerator.is_available():
        return ""
    return (
        "mixed_precision is fp16, but there is no graphics card that PyTorch can use. The run computes in fp16 all the "
        "same, as it was asked to; on a CPU that is many times slower than fp32, which it takes by itself without fp16."
    )
