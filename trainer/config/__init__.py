"""The settings of a training run: their schema, their validation, and the choice of values left on auto."""

from .data_settings import DataSettings
from .facts import DatasetFacts, ModelFacts
from .notes import notes
from .objective_settings import ObjectiveSettings
from .resolve import Resolved, ResolvedConfig, resolve
from .schema import OF_OTHER_NODES, SETTINGS, TrainingConfig
from .setting import Setting
from .validation import from_widgets, parse_config

__all__ = [
    "OF_OTHER_NODES",
    "SETTINGS",
    "DataSettings",
    "DatasetFacts",
    "ModelFacts",
    "ObjectiveSettings",
    "Resolved",
    "ResolvedConfig",
    "Setting",
    "TrainingConfig",
    "from_widgets",
    "notes",
    "parse_config",
    "resolve",
]
