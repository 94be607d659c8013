"""From files of other programs to configs, several files at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.validation import check_values, quoted
from ..errors import CrucibleError
from .ai_toolkit import TRAINS, convert_ai_toolkit
from .conversion import Conversion, names_of_keys
from .kohya import convert_kohya
from .kohya_datasets import set_datasets
from .kohya_gui import arguments_of_gui
from .onetrainer import convert_onetrainer
from .onetrainer_concepts import set_concepts
from .own_lora import convert_own_lora
from .recognize import Recognized, recognize

MUSUBI = (
    "hv_",
    "wan",
    "fpack",
    "flux_kontext",
    "flux_2",
    "qwen_image",
    "zimage",
    "kandinsky",
    "hunyuan_video",
    "framepack",
)
"""The starts of the names of musubi-tuner's scripts."""

SPLIT = {"concepts": "onetrainer", "dataset": "sd-scripts"}


def convert(paths: Sequence[Path]) -> list[Conversion]:
    """Translate config files of other programs; a dataset file beside the one of a training is taken together with it.

    Raises:
        CrucibleError: a file cannot be read, or is no config that can be translated.
    """
    files = [recognize(path) for path in paths]
    datasets = [one for one in files if one.kind == "dataset"]
    concepts = [one for one in files if one.kind == "concepts"]
    trainings = [one for one in files if one.kind not in ("dataset", "concepts")]
    found: list[Conversion] = []
    for file in trainings:
        alone = len([one for one in trainings if one.kind == file.kind]) == 1
        found += _converted(file, datasets if alone else [], concepts if alone else [])
    if not any(one.kind in ("sd-scripts", "command", "kohya_ss") for one in trainings):
        found += [_only_a_dataset(one) for one in datasets]
    if not any(one.kind == "onetrainer" for one in trainings):
        found += [_only_concepts(one) for one in concepts]
    for conversion in found:
        _drop_what_is_wrong(conversion)
    return found


def _converted(file: Recognized, datasets: Sequence[Recognized], concepts: Sequence[Recognized]) -> list[Conversion]:
    name = file.path.stem
    if file.kind == "lora":
        return [convert_own_lora(file.path, Conversion(file.program, file.path.name, f"{name}_again"))]
    if file.kind == "ai-toolkit":
        return _jobs(file)
    if file.kind == "onetrainer":
        values = dict(file.values)
        beside = [*concepts, *_beside(file, values.get("concept_file_name"), "concepts")][:1]
        conversion = Conversion(file.program, _names(file, beside), name)
        conversion.given = tuple(names_of_keys([values, *(one.values for one in beside)]))
        return [convert_onetrainer(values, conversion, beside[0].values if beside else ())]
    if file.kind == "command":
        return _commands(file, datasets)
    values, script = dict(file.values), ""
    beside = [*datasets, *_beside(file, values.get("dataset_config"), "dataset")][:1]
    conversion = Conversion(file.program, _names(file, beside), name)
    conversion.given = tuple(names_of_keys([values, *(one.values for one in beside)]))
    if file.kind == "kohya_ss":
        values, script = arguments_of_gui(values, conversion)
    values["source_folder"] = str(file.path.parent)
    return [convert_kohya(values, conversion, script=script, datasets=beside[0].values if beside else None)]


def _commands(file: Recognized, datasets: Sequence[Recognized]) -> list[Conversion]:
    """Translate each command of a script; several commands are several runs."""
    found = []
    for number, command in enumerate(file.values, start=1):
        name = file.path.stem + (f"_{number}" if len(file.values) > 1 else "")
        program = "musubi-tuner (a command line)" if command.script.startswith(MUSUBI) else file.program
        values = dict(command.options)
        beside = [*datasets, *_beside(file, values.get("dataset_config"), "dataset")][:1]
        conversion = Conversion(program, _names(file, beside), name)
        if isinstance(config := values.pop("config_file", None), str):
            inside = _beside(file, config if config.endswith(".toml") else f"{config}.toml", "sd-scripts")
            if inside:
                values = {**inside[0].values, **values}
                conversion.source += f" with {inside[0].path.name}"
            else:
                conversion.lose("config_file", config, "this file was not there; convert it by itself")
        for key in command.repeated:
            conversion.guess(f"--{key} is there more than once; the last one counts, as it does there")
        for key, variable in command.unset.items():
            conversion.lose(key, variable, "the file does not set this variable; write the value into the YAML")
        for text in command.unsure:
            conversion.guess(text)
        for key, value in command.launcher.items():
            if key == "mixed_precision":
                values.setdefault(key, value)
            else:
                values[key] = value
        conversion.given = tuple(names_of_keys([values, *(one.values for one in beside)]))
        values["source_folder"] = str(file.path.parent)
        found.append(
            convert_kohya(values, conversion, script=command.script, datasets=beside[0].values if beside else None)
        )
    return found


def _jobs(file: Recognized) -> list[Conversion]:
    config = dict(file.values["config"])
    processes = [one for one in config.pop("process") if isinstance(one, Mapping)]
    trains = [one for one in processes if str(one.get("type", "sd_trainer")) in TRAINS]
    if not trains:
        kinds = ", ".join(str(one.get("type")) for one in processes) or "none"
        raise CrucibleError(
            f"{file.path} is a job of ai-toolkit that trains no LoRA (its processes: {kinds}), so there is nothing to "
            f"convert. Jobs with a process of the type {TRAINS[0]} are translated."
        )
    job = {**{key: value for key, value in file.values.items() if key != "config"}, "config": config}
    name, found = str(config.get("name") or file.path.stem), []
    for number, process in enumerate(trains, start=1):
        own = file.path.stem + (f"_{number}" if len(trains) > 1 else "")
        called = name.replace("[name]", name) + (f"_{number}" if len(trains) > 1 else "")
        conversion = Conversion(file.program, file.path.name, own, given=tuple(names_of_keys([job, process])))
        found.append(convert_ai_toolkit(job, called, process, conversion))
    for process in processes:
        if process not in trains:
            found[0].lose("process", process.get("type"), "this process trains no LoRA")
    return found


def _only_a_dataset(file: Recognized) -> Conversion:
    conversion = Conversion(file.program, file.path.name, file.path.stem, given=tuple(names_of_keys(file.values)))
    set_datasets(conversion, file.values, {})
    for key in file.values.keys() - {"general", "datasets"}:
        conversion.lose(key, file.values[key], "LoRA Crucible does not know this key")
    conversion.guess(
        "the file is a dataset without a training: base_model is missing, and the rest is chosen by itself"
    )
    return conversion


def _only_concepts(file: Recognized) -> Conversion:
    conversion = Conversion(file.program, file.path.name, file.path.stem, given=tuple(names_of_keys(file.values)))
    set_concepts(conversion, file.values)
    conversion.guess(
        "the file holds concepts without a training: base_model is missing, and the rest is chosen by itself"
    )
    return conversion


def _beside(file: Recognized, named: Any, kind: str) -> list[Recognized]:
    """Return the file that a config names, if it is where the name says, counted from the config, and of this kind."""
    if not isinstance(named, str) or not named:
        return []
    for path in (file.path.parent / named, file.path.parent / Path(named.replace("\\", "/")).name):
        if path.is_file():
            found = recognize(path)
            return [found] if found.kind == kind else []
    return []


def _names(file: Recognized, beside: Sequence[Recognized]) -> str:
    return " and ".join(one.path.name for one in (file, *beside))


def _drop_what_is_wrong(conversion: Conversion) -> None:
    """Leave out settings with values that are not valid here, so that `check` accepts the rest.

    A package that is not installed is no reason: the run may be meant for another computer.
    """
    for _ in range(len(conversion.settings) + 1):
        _, problems = check_values(conversion.settings)
        wrong = [one for one in problems if "is not installed" not in one.text]
        keys = {key: one.text for one in wrong for key in one.keys[:1] if key in conversion.settings}
        if not keys:
            return
        for key, text in keys.items():
            value = conversion.settings.pop(key)
            origin = conversion.reasons.pop(key) or key
            conversion.lost.append(f"{origin} = {quoted(value)}: left out, because {text}")


def packages_of(conversion: Conversion) -> list[str]:
    """Return what is said about packages that the settings need and that are not installed."""
    _, problems = check_values(conversion.settings)
    return [one.text for one in problems if "is not installed" in one.text]
