"""The command `python -m trainer convert-config`, which turns configs of other programs into ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import errors_about
from ..files.names import check_output_name, unused_name
from .exit_status import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..conversion.conversion import Conversion


def add_convert_config_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    convert = commands.add_parser(
        "convert-config", help="turn a config of another program, or the settings in a LoRA, into a config file"
    )
    convert.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="command lines, TOML and dataset files of sd-scripts and musubi-tuner; settings of kohya_ss and "
        "lora-scripts; configs and concepts of OneTrainer; jobs of ai-toolkit; LoRAs that were trained here",
    )
    convert.add_argument(
        "--output",
        type=Path,
        metavar="FILE.yaml",
        help="the file to write (default: beside the first file, under its name); an existing file is never "
        "overwritten",
    )
    convert.set_defaults(command=_convert_config, needs=())


@errors_about("settings")
def _convert_config(options: argparse.Namespace) -> Outcome:
    from ..conversion.convert import convert, packages_of
    from ..conversion.write import report_of, yaml_of
    from ..files.atomic import write_whole
    from ..files.text import encoded

    conversions = convert(options.files)
    written: list[str] = []
    for conversion, path in zip(conversions, _targets(options, conversions), strict=True):
        path = _unused(path)
        write_whole(path, encoded(yaml_of(conversion)), what="The config file")
        written.append(str(path))
        print(report_of(conversion))
        for text in packages_of(conversion):
            print(f"To train here: {text}.")
        missing = [name for name in ("base_model", "train_data_dir") if name not in conversion.settings]
        if missing:
            print(f"Add {' and '.join(missing)} before you train: the file does not name it.")
        print(f"Saved {path}.")
        print("Relative paths in it count from its folder. Correct them if need be, then run:")
        print(f"  python -m trainer check {path}\n")
    if len(conversions) > 1:
        print(f"These are {len(conversions)} trainings, so {len(conversions)} files were written.")
    return Outcome({"outputs": written})


def _targets(options: argparse.Namespace, conversions: Sequence[Conversion]) -> list[Path]:
    """Return the path to write each config to; several configs get the numbers 1, 2, … unless their names differ."""
    if options.output is None:
        folder = options.files[0].expanduser().parent
        return [folder / f"{conversion.name}.yaml" for conversion in conversions]
    output = options.output.expanduser()
    output = output if output.suffix else output.with_suffix(".yaml")
    if len(conversions) == 1:
        return [output]
    return [output.with_stem(f"{output.stem}_{number}") for number, _ in enumerate(conversions, start=1)]


def _unused(path: Path) -> Path:
    """Return the path, with a number added to the name if there is such a file."""
    name = unused_name(check_output_name(path.stem), lambda one: (path.parent / f"{one}{path.suffix}").exists())
    return path.with_name(f"{name}{path.suffix}")
