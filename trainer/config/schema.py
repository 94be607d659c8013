"""Every setting of a training run, with its range, default and description.

This is the only place where settings are defined: node widgets, YAML keys, command line and documentation are
generated from these fields. A field that is None is on auto, and `resolve` chooses a value for it.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator

from .adapter_settings import AdapterSettings
from .base_model_settings import BaseModelSettings
from .data_settings import DataSettings
from .guard_settings import GuardSettings
from .length_settings import LengthSettings
from .objective_settings import ObjectiveSettings
from .optimizer_settings import OptimizerSettings
from .output_settings import OutputSettings
from .preview_settings import PreviewSettings
from .run_settings import RunSettings
from .setting import Setting, describe_settings
from .text_settings import RowSettings, TextSettings


# pydantic takes the fields of the last base first, which gives the order of widgets. Saved workflows store the values
# of widgets by position, so settings keep theirs.
class TrainingConfig(
    BaseModelSettings,
    RowSettings,
    TextSettings,
    RunSettings,
    GuardSettings,
    ObjectiveSettings,
    OptimizerSettings,
    PreviewSettings,
    LengthSettings,
    AdapterSettings,
    OutputSettings,
    DataSettings,
):
    """The settings of one training run. Use `parse_config` to build one from values that a user wrote."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_as_written(cls, value: Any, info: ValidationInfo) -> Any:
        return SETTINGS[str(info.field_name)].read(value)

    @property
    def data(self) -> DataSettings:
        """The settings of the dataset, without those of the training."""
        return DataSettings(**{name: getattr(self, name) for name in DataSettings.model_fields})

    @property
    def row_settings(self) -> RowSettings:
        """The settings of rows of texts, without those of the training."""
        return RowSettings(**{name: getattr(self, name) for name in RowSettings.model_fields})


SETTINGS: dict[str, Setting] = describe_settings(TrainingConfig)
"""The description of each field by its key, in the order of widgets and config files."""

OF_OTHER_NODES = (
    *("base_model", "output_dir", "output_name", "resume_from_checkpoint", "continue_from"),
    *("task_type", "chat_template", "load_in_4bit"),
    *BaseModelSettings.model_fields,
    *RowSettings.model_fields,
    *DataSettings.model_fields,
)
"""Settings that, in ComfyUI, a configuring node does not have: they come from the nodes that load datasets, from those
that train, or from the connected model."""
