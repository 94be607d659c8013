"""Which program a config file is of, by its content."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml

from ..config.validation import meant_by
from ..errors import CrucibleError
from ..files.text import read_text
from .command_lines import CommandLine, command_lines

Kind = Literal["sd-scripts", "dataset", "command", "kohya_ss", "onetrainer", "concepts", "ai-toolkit", "lora"]

MOST_BYTES = 4_000_000
"""The size above which a file is no config."""

OF_SD_SCRIPTS = (
    "pretrained_model_name_or_path",
    "network_module",
    "network_dim",
    "train_batch_size",
    "dataset_config",
    "dit",
)
"""Arguments of sd-scripts and musubi-tuner, of which a TOML file of them has some."""

_LANGUAGE = "its keys can be used here as they are: give the file to `check`"
OTHER_PROGRAMS = (
    (("class_type",), "a workflow of ComfyUI in the form of its API", "load it in ComfyUI"),
    (("nodes", "links"), "a workflow of ComfyUI", "load it in ComfyUI"),
    (
        ("peft_type",),
        "the config of an adapter that PEFT saved",
        "name its folder in continue_from to train it further",
    ),
    (("_diffusers_version", "_class_name"), "the config of a diffusers model", "set base_model to its folder"),
    (("architectures", "model_type"), "the config of a transformers model", "set base_model to its folder"),
    (("data_backend_config",), "a config of SimpleTuner", ""),
    (("model_family",), "a config of SimpleTuner", ""),
    (("--model_family",), "a config of SimpleTuner", ""),
    (("instance_data_dir", "metadata_update_interval"), "a list of data backends of SimpleTuner", ""),
    (("adapter.type", "model.type"), "a config of diffusion-pipe", ""),
    (("directory", "resolutions"), "a dataset of diffusion-pipe", ""),
    (("finetuning_type",), "a config of LLaMA-Factory", _LANGUAGE),
    (("base_model", "datasets", "adapter"), "a config of axolotl", _LANGUAGE),
    (("compute_environment", "distributed_type"), "the config of accelerate", "give it to accelerate launch"),
)
"""Other files by some of their keys: what they are, and what to do with them."""


@dataclass(frozen=True)
class Recognized:
    """A file and what it is.

    Attributes:
        path: the path of the file.
        kind: the kind of file.
        program: the program and the kind of file, as a user would call it.
        values: the content; a list for commands and concepts.
    """

    path: Path
    kind: Kind
    program: str
    values: Any


def recognize(path: Path) -> Recognized:
    """Read a file, and tell by its content which program it is of.

    Raises:
        CrucibleError: the file does not exist, is no text, or is no config that can be translated; the error says what
            it seems to be.
    """
    path = path.expanduser()
    if path.is_dir():
        raise CrucibleError(f"{path} is a folder. Give the config file in it that you want to convert.")
    if not path.is_file():
        from ..messages.suggestions import nearest_path

        raise CrucibleError(
            f"{path} does not exist, so there is nothing to convert. {nearest_path(path)} Correct the path."
        )
    if path.suffix.lower() == ".safetensors":
        return Recognized(path, "lora", "LoRA Crucible (a LoRA file)", None)
    if path.stat().st_size > MOST_BYTES or b"\0" in path.open("rb").read(1000).replace(b"\0\0", b""):
        raise CrucibleError(
            f"{path} is no config file: it is too large for one, or holds bytes that are no text. convert-config reads "
            "config files, command lines and LoRAs of LoRA Crucible (.safetensors)."
        )
    text = read_text(path)
    values = _parsed(path, text)
    if isinstance(values, list) and values and isinstance(values[0], CommandLine):
        return Recognized(path, "command", "sd-scripts (a command line)", values)
    if isinstance(values, list) and values and all(isinstance(one, Mapping) for one in values):
        if all("path" in one and ("image" in one or "text" in one or "type" in one) for one in values):
            return Recognized(path, "concepts", "OneTrainer (concepts)", values)
        keys = {key: None for one in values for key in one}
        raise _of_another_program(path, keys) or _refused(path, keys, text)
    if not isinstance(values, Mapping):
        raise _refused(path, {}, text)
    return _of_mapping(path, dict(values), text)


def _of_mapping(path: Path, values: dict[str, Any], text: str) -> Recognized:
    config = values.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("process"), list):
        return Recognized(path, "ai-toolkit", "ai-toolkit (a job)", values)
    if isinstance(values.get("process"), list):
        return Recognized(path, "ai-toolkit", "ai-toolkit (a job)", {"config": values})
    if "training_method" in values or ("base_model_name" in values and "model_type" in values):
        return Recognized(path, "onetrainer", "OneTrainer (a config)", values)
    if "LoRA_type" in values or ("max_resolution" in values and "train_batch_size" in values):
        return Recognized(path, "kohya_ss", "kohya_ss (settings of the GUI)", values)
    sets = values.get("datasets")
    if isinstance(sets, list) and all(isinstance(one, Mapping) for one in sets) and not _is_for_language(sets):
        is_musubi = any("image_directory" in one or "video_directory" in one for one in sets)
        program = "musubi-tuner (a dataset)" if is_musubi else "sd-scripts (a dataset)"
        if is_musubi or any("subsets" in one for one in sets):
            return Recognized(path, "dataset", program, values)
    flat = _without_sections(values)
    known = [key for key in OF_SD_SCRIPTS if key in flat]
    is_ours = all(meant_by(str(key), value) is not None for key, value in flat.items())
    if len(known) >= 2 and not (is_ours and path.suffix.lower() in (".yaml", ".yml")):
        if "model_train_type" in flat or "train_type" in flat:
            program = "lora-scripts (settings)"
        else:
            program = "musubi-tuner (arguments)" if "dit" in flat else "sd-scripts (arguments)"
        return Recognized(path, "sd-scripts", program, flat)
    if (refusal := _of_another_program(path, values)) is not None:
        raise refusal
    if is_ours and flat and path.suffix.lower() != ".toml":
        raise CrucibleError(
            f"{path} is a config of LoRA Crucible already: every key in it is known here. Give it to `python -m "
            "trainer check` or `train`."
        )
    raise _refused(path, values, text)


def _without_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the sections that they are sorted into, which have no meaning for sd-scripts."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= dict(value) if isinstance(value, Mapping) else {key: value}
    return flat


def _is_for_language(sets: list[Any]) -> bool:
    return any("type" in one and "path" in one for one in sets if isinstance(one, Mapping))


def _parsed(path: Path, text: str) -> Any:
    """Parse a text as what it can be: JSON, commands, TOML or YAML."""
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start in ("{", "["):
        try:
            return json.loads(text)
        except ValueError as error:
            if start == "{":
                raise CrucibleError(
                    f"{path} looks like JSON, but cannot be read ({error}), so nothing was converted. Save it again "
                    "in the program that it is from."
                ) from error
    is_script = text.startswith("#!") or path.suffix.lower() in (".sh", ".bat", ".cmd", ".ps1", ".txt", ".command")
    if found := command_lines(text) if is_script or " --" in text else []:
        return found
    errors: list[str] = []
    for name, parse in (("TOML", _toml), ("YAML", yaml.safe_load)):
        if name == "TOML" and path.suffix.lower() in (".yaml", ".yml"):
            continue
        try:
            values = parse(text)
        except CrucibleError:
            raise
        except (ValueError, yaml.YAMLError) as error:
            errors.append(f"as {name}: {str(error).splitlines()[0]}")
            continue
        if isinstance(values, Mapping | list):
            return values
    if path.suffix.lower() in (".toml", ".yaml", ".yml") and errors:
        raise CrucibleError(
            f"{path} cannot be read ({'; '.join(errors)}), so nothing was converted. Correct it where it says, or "
            "save it again in the program that it is from."
        )
    return None


def _toml(text: str) -> Any:
    # Part of Python since 3.11; tomli is the same for 3.10.
    name = "tomllib" if find_spec("tomllib") else "tomli"
    if find_spec(name) is None:
        raise CrucibleError(
            "TOML files can be read with Python 3.11 or newer, or with the package tomli, which is not installed. "
            "Install "
            f'it with: "{sys.executable}" -m pip install tomli'
        )
    return import_module(name).loads(text)


def _of_another_program(path: Path, values: Mapping[str, Any]) -> CrucibleError | None:
    """Return the refusal of a file that is known but cannot be translated; None if it is not known."""
    flat = {
        *values,
        *(f"{key}.{inner}" for key, value in values.items() if isinstance(value, Mapping) for inner in value),
    }
    flat |= {key for value in values.values() if isinstance(value, Mapping) and "class_type" in value for key in value}
    for keys, what, todo in OTHER_PROGRAMS:
        if flat >= set(keys):
            ending = f"; {todo}" if todo else ", which convert-config does not read"
            return CrucibleError(f"{path} is {what}{ending}. Nothing was converted.")
    return None


def _refused(path: Path, values: Mapping[str, Any], text: str) -> CrucibleError:
    shown = ", ".join(list(map(str, values))[:5])
    seems = f"its keys are {shown}" if shown else f'it starts with "{" ".join(text.split())[:60]}"'
    return CrucibleError(
        f"{path} is no config that convert-config knows ({seems}), so nothing was converted. It reads command lines, "
        "TOML and dataset files of kohya's sd-scripts and musubi-tuner, settings saved by kohya_ss and lora-scripts, "
        "configs and concepts of OneTrainer, jobs of ai-toolkit, and LoRAs of LoRA Crucible."
    )
