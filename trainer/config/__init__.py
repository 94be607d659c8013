"""The settings of a training run: their schema, their checks, and the choice of what was left on auto."""

from .data_settings import DataSettings
from .objective_settings import ObjectiveSettings
from .resolve import DEMO_VALUES, Resolved, ResolvedConfig, resolve
from .schema import SETTINGS, TrainingConfig
from .setting import Setting
from .validation import from_widgets, parse_config

__all__ = [
    "DEMO_VALUES",
    "SETTINGS",
    "DataSettings",
    "ObjectiveSettings",
    "Resolved",
    "ResolvedConfig",
    "Setting",
    "TrainingConfig",
    "from_widgets",
    "parse_config",
    "resolve",
]
