"""The settings of a LoRA that was trained here, from the metadata in its file."""

from __future__ import annotations

import json
from pathlib import Path

from ..config.schema import SETTINGS
from ..errors import CrucibleError
from ..formats.header import read_header
from .conversion import Conversion


def convert_own_lora(path: Path, conversion: Conversion) -> Conversion:
    """Return the settings in a LoRA's file, which train the same LoRA again on the same data and model.

    Raises:
        CrucibleError: the file is no LoRA, or was not trained by LoRA Crucible.
    """
    metadata = read_header(path).metadata
    if "crucible.config" not in metadata:
        trainer = "has metadata of kohya's trainer, but " if any(key.startswith("ss_") for key in metadata) else ""
        raise CrucibleError(
            f"{path} {trainer}does not hold the settings that it was trained with; only LoRAs of LoRA Crucible do. "
            "Convert the config file that it was trained with, or train it further with continue_from."
        )
    config = json.loads(metadata["crucible.config"])
    config.setdefault("output_name", metadata.get("ss_output_name") or path.stem)
    continued = json.loads(metadata.get("crucible.continued_from", "null"))
    for name, value in config.items():
        if name not in SETTINGS:
            conversion.lose(name, value, "this version of LoRA Crucible has no such setting")
        elif name == "output_name" or value not in (None, SETTINGS[name].default):
            conversion.set(name, value, "")
    conversion.settings.pop("resume_from_checkpoint", None)  # the settings are those of all of the run
    for name in [name for name in conversion.settings if SETTINGS[name].path]:
        value = str(conversion.settings[name])
        if value != "demo" and "/" not in value and "\\" not in value:
            conversion.guess(f"{name} = {value}: the file has no folders, because LoRAs are shared; write where it is")
    if continued:
        for name in ("lora_rank", "lora_alpha", "target_modules"):
            value = conversion.settings.pop(name, None)
            conversion.guess(f"{name} = {value} came with the LoRA that it was trained further from, so it is left out")
        conversion.guess(f"it was trained further from {continued.get('name')}; continue_from must name that file")
    return conversion
