"""The values chosen for settings that were left on auto."""

from __future__ import annotations

from typing import Any

from ..config.contradictions import WITHOUT_DROPOUT
from ..config.schema import TrainingConfig

DEMO_VALUES: dict[str, Any] = {
    "lora_rank": 8,
    "target_modules": "attention_and_feed_forward",
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-3,
    "loss_weighting": "none",
    "caption_dropout_rate": 0.0,
    "max_train_steps": 400,
    "lr_warmup_steps": 20,
    "resolution": 64,
    "validation_percent": 0.0,
}
"""Values for the demo model, which is far smaller than any real one. Its warmup is an upper limit, like
MOST_WARMUP_STEPS."""


class AutoValues:
    """Chosen values and the reasons for them. Values set by the user are kept, and the demo model has its own.

    Attributes:
        unit: the word for an example in the singular, in reasons.
    """

    def __init__(self, config: TrainingConfig, architecture: str, unit: str = "image") -> None:
        self.config = config
        self.unit = unit
        self.own_values = DEMO_VALUES if architecture == "demo" else {}
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def value(self, name: str) -> Any:
        """Return the value that the user set or that was chosen for a setting, or None if there is neither yet."""
        return self.values.get(name, getattr(self.config, name))

    def take(self, name: str, value: Any, reason: str, *, most: int | None = None) -> Any:
        """Choose a value for a setting, unless the user or the demo model provides one, and return the value in effect.

        Args:
            most: the number of examples, which limits a batch size.
        """
        given = getattr(self.config, name)
        if given is not None:
            return given
        if name in self.own_values:
            value, reason = self.own_values[name], "suits the demo model"
        if most is not None and value > most:
            value, reason = most, f"the dataset has no more {self.unit}s"
        return self.set(name, value, reason)

    def take_dropout(self, value: float, reason: str) -> None:
        """Choose the dropout of the adapters, which some algorithms do not have."""
        if self.config.algorithm in WITHOUT_DROPOUT:
            value, reason = 0.0, f"{self.config.algorithm} does not support dropout"
        self.take("lora_dropout", value, reason)

    def set(self, name: str, value: Any, reason: str) -> Any:
        """Choose a value for a setting, replacing any earlier one, and return it."""
        self.values[name] = value
        self.reasons[name] = f"{value:g}: {reason}" if isinstance(value, float) else f"{value}: {reason}"
        return value
