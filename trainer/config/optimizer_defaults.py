"""The values that each optimizer is usually run with."""

from __future__ import annotations

from dataclasses import dataclass

from .optimizer_settings import OptimizerName


@dataclass(frozen=True)
class OptimizerDefaults:
    """The usual values of an optimizer.

    Attributes:
        title: the name shown to the user.
        learning_rate: the learning rate as a multiple of AdamW's; for Prodigy, the learning rate itself.
        reason: the reason for the learning rate.
        betas: the usual betas, or None for an optimizer without betas.
    """

    title: str
    learning_rate: float
    reason: str
    betas: tuple[float, float] | None = (0.9, 0.999)


OPTIMIZER_DEFAULTS: dict[OptimizerName, OptimizerDefaults] = {
    "adamw": OptimizerDefaults("AdamW", 1.0, "usual for AdamW"),
    # Dettmers et al. 2022 (arXiv:2110.02861): 8-bit states behave like 32-bit ones with the same settings.
    "adamw_8bit": OptimizerDefaults("8-bit AdamW", 1.0, "the same as for AdamW"),
    # Its updates are clipped to a root mean square of 1 (Shazeer & Stern 2018, arXiv:1804.04235, section 6), about
    # the size of AdamW's.
    "adafactor": OptimizerDefaults("Adafactor", 1.0, "the same as for AdamW, which takes equally large steps,", None),
    # Chen et al. 2023 (arXiv:2302.06675), section 5: 3 to 10 times smaller, because every entry moves by the full rate.
    "lion": OptimizerDefaults("Lion", 0.2, "a fifth of the usual rate for AdamW", (0.9, 0.99)),
    # Mishchenko & Defazio 2024 (arXiv:2306.06101).
    "prodigy": OptimizerDefaults("Prodigy", 1.0, "Prodigy multiplies it by the learning rate that it finds itself"),
    # Defazio et al. 2024 (arXiv:2405.15682); their README recommends 1 to 10 times the rate used with a schedule.
    "schedule_free_adamw": OptimizerDefaults(
        "schedule-free AdamW", 2.0, "twice the usual rate for AdamW, because it never decays,"
    ),
}
