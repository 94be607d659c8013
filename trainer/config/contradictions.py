"""Detection of settings that are valid on their own but contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .optimizer_defaults import OPTIMIZER_DEFAULTS
from .schema import SETTINGS, TrainingConfig

LEAST_FOR_PRODIGY, MOST_FOR_OTHERS = 0.1, 0.5
"""Learning rates below the first make no sense with Prodigy, and those above the second only make sense with it."""

ACTS_ONLY_WITH = {
    "min_snr_gamma": ("loss_weighting", "min_snr"),
    "huber_delta": ("loss_type", "huber"),
    "mode_scale": ("timestep_sampling", "mode"),
    "lr_scheduler_num_cycles": ("lr_scheduler", "cosine_with_restarts"),
    "lr_scheduler_power": ("lr_scheduler", "polynomial"),
}
"""Settings that have no effect unless another setting has this value."""

WITHOUT_DROPOUT = ("loha", "lokr")
"""The algorithms whose adapters have no dropout."""

Contradiction = tuple[tuple[str, ...], str]
"""The names of the settings involved, and the message for the user."""


def contradictions(config: TrainingConfig, written_as: Mapping[str, str]) -> list[Contradiction]:
    """Return the contradictions between the settings of a config.

    Args:
        written_as: the key under which the user wrote each setting, for those that were written.
    """

    def key(name: str) -> str:
        return written_as.get(name, name)

    return [
        *_of_the_algorithm(config, key),
        *_of_the_optimizer(config, key),
        *_of_the_warmup(config, key),
        *_of_the_checkpoints(config, key),
        *_without_effect(config, written_as),
    ]


def _of_the_algorithm(config: TrainingConfig, key: Callable[[str], str]) -> list[Contradiction]:
    found: list[Contradiction] = []
    if config.algorithm not in WITHOUT_DROPOUT:
        return found
    chosen = f"{key('algorithm')} = {config.algorithm}"
    if config.lora_dropout:
        text = (
            f"{key('lora_dropout')} = {config.lora_dropout:g} with {chosen}, which does not support dropout; set it "
            "to 0, or choose lora, rslora or dora"
        )
        found.append((("lora_dropout", "algorithm"), text))
    if config.loraplus_ratio != 1:
        text = (
            f"{key('loraplus_ratio')} = {config.loraplus_ratio:g} with {chosen}, but LoRA+ only applies to the two "
            "matrices of a LoRA; set it to 1, or choose lora, rslora or dora"
        )
        found.append((("loraplus_ratio", "algorithm"), text))
    return found


def _of_the_optimizer(config: TrainingConfig, key: Callable[[str], str]) -> list[Contradiction]:
    found: list[Contradiction] = []
    name, rate = config.optimizer, config.learning_rate
    chosen = f"{key('optimizer')} = {name}"
    for beta in ("adam_beta1", "adam_beta2"):
        if OPTIMIZER_DEFAULTS[name].betas is None and getattr(config, beta) is not None:
            found.append(((beta,), f"{key(beta)} = {getattr(config, beta):g}, but {chosen} has no betas; remove it"))
    if rate is not None and name == "prodigy" and rate < LEAST_FOR_PRODIGY:
        text = (
            f"{key('learning_rate')} = {rate:g} with {chosen}, which multiplies it by the learning rate that it finds "
            "itself, so almost nothing would be learned; set it to 1, or leave it on auto"
        )
        found.append((("learning_rate", "optimizer"), text))
    if rate is not None and name != "prodigy" and rate > MOST_FOR_OTHERS:
        text = (
            f"{key('learning_rate')} = {rate:g} with {chosen} would ruin the LoRA in its first steps; only prodigy "
            "can use a rate this high. Leave it on auto"
        )
        found.append((("learning_rate", "optimizer"), text))
    if name == "schedule_free_adamw":
        if config.lr_scheduler not in (None, "constant"):
            text = (
                f"{key('lr_scheduler')} = {config.lr_scheduler} with {chosen}, which averages the weights instead of "
                "lowering the learning rate; leave it on auto, or choose another optimizer"
            )
            found.append((("lr_scheduler", "optimizer"), text))
        if config.ema_decay:
            text = (
                f"{key('ema_decay')} = {config.ema_decay:g} with {chosen}, which already averages the weights; set it "
                "to 0, or choose another optimizer"
            )
            found.append((("ema_decay", "optimizer"), text))
    return found


def _of_the_warmup(config: TrainingConfig, key: Callable[[str], str]) -> list[Contradiction]:
    steps, ratio = config.lr_warmup_steps, config.lr_warmup_ratio
    if steps is None or ratio is None:
        return []
    names = ("lr_warmup_steps", "lr_warmup_ratio")
    text = (
        f"{key(names[0])} = {steps} and {key(names[1])} = {ratio:g} both say how long the warmup is; keep one of them"
    )
    return [(names, text)]


def _of_the_checkpoints(config: TrainingConfig, key: Callable[[str], str]) -> list[Contradiction]:
    steps, epochs = config.save_steps, config.save_every_n_epochs
    if steps is None or not epochs:
        return []
    names = ("save_steps", "save_every_n_epochs")
    text = (
        f"{key(names[0])} = {steps} and {key(names[1])} = {epochs} both say how often checkpoints are saved; keep one "
        "of them"
    )
    return [(names, text)]


def _without_effect(config: TrainingConfig, written_as: Mapping[str, str]) -> list[Contradiction]:
    """Return settings without effect because the setting that they depend on was not written at all.

    If it was written with another value, nothing is reported: a node always has a value for every widget.
    """
    return [
        (
            (name,),
            f"{written_as[name]} = {getattr(config, name):g} only has an effect with {other} = {value}, which is not "
            f"set; set it, or remove {written_as[name]}",
        )
        for name, (other, value) in ACTS_ONLY_WITH.items()
        if name in written_as and other not in written_as and SETTINGS[name].task in (None, config.task_type)
    ]
