"""The settings of a training run: their schema, their files and their checks."""

from .data_settings import DataSettings
from .facts import DatasetFacts, ModelFacts
from .objective_settings import ObjectiveSettings
from .resolved import ResolvedConfig
from .schema import OF_OTHER_NODES, SETTINGS, TrainingConfig
from .setting import Setting
from .text_settings import RowSettings
from .validation import from_widgets, parse_config

__all__ = [
    "OF_OTHER_NODES",
    "SETTINGS",
    "DataSettings",
    "DatasetFacts",
    "ModelFacts",
    "ObjectiveSettings",
    "ResolvedConfig",
    "RowSettings",
    "Setting",
    "TrainingConfig",
    "from_widgets",
    "parse_config",
]
