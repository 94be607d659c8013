"""A summary of the settings of a run, shown to the user before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import OF_OTHER_NODES, SETTINGS, ModelFacts, RowSettings, TrainingConfig
from ..config.data_settings import OPEN_IN_DATASETS
from ..config.widgets_and_yaml import to_yaml
from ..data.base import Dataset
from .advice import notes
from .decided_by import DECIDED_BY, DECIDED_BY_FOR_TEXTS
from .plan import Plan, make_plan, note_lines

NEW_LINE, INDENTED = "\n", "\n    "


@dataclass(frozen=True)
class Summary:
    """The settings of a run as text for the user, and as a config file.

    Attributes:
        chosen: the value of each setting that was chosen automatically, and of those that the dataset decides; empty
            while dataset and model are not known.
    """

    text: str
    yaml: str
    chosen: dict[str, Any]


def summarise(
    config: TrainingConfig,
    dataset: Dataset | None,
    model: ModelFacts | None,
    warnings: Sequence[str] = (),
    said_elsewhere: Mapping[str, Any] | None = None,
    plan: Plan | None = None,
) -> Summary:
    """Summarise what is set, what is or will be chosen and why, and what is worth knowing.

    Args:
        dataset: the dataset, or None while it is not known.
        model: the facts about the base model, or None while it is not known. Unless both are known, the summary says
            only how values will be chosen.
        warnings: warnings about the model.
        said_elsewhere: settings in the pasted YAML that other nodes decide.
        plan: the plan of the run; None makes it from the dataset and the model.

    Raises:
        CrucibleError: the settings contradict each other.
    """
    elsewhere = dict(said_elsewhere or {})
    if dataset is not None:
        asked = {name: getattr(config, name) for name in OPEN_IN_DATASETS}
        config = dataset.settle(config)
        elsewhere |= {name: value for name, value in asked.items() if value not in (None, getattr(config, name))}
        config = config.model_copy(update={"train_data_dir": dataset.source})
    if model is not None and model.architecture == "demo":
        config = config.model_copy(update={"base_model": "demo"})
    reasons: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    if dataset is not None and model is not None:
        plan = plan or make_plan(config, dataset, model)
        reasons, remarks = plan.resolved.reasons, plan.notes
        chosen = {name: getattr(plan.resolved.values, name) for name in (*reasons, *OPEN_IN_DATASETS)}
    else:
        remarks = notes(config, model=model)
        if dataset is not None and config.purpose == "auto" and config.task_type == "text-to-image":
            reasons["purpose"] = ": ".join(dataset.likely_purpose())
    lines = ["Set by hand:", *_given(config)]
    if reasons:
        lines += ["Chosen automatically:", *(f"  {name} = {reason}" for name, reason in reasons.items())]
    later = [name for name in _open(config, model) if name not in reasons]
    decided_by = DECIDED_BY | (DECIDED_BY_FOR_TEXTS if config.task_type == "text-generation" else {})
    lines += ["Chosen when training starts:", *(f"  {name}: {decided_by[name]}" for name in later)]
    socket = "clip" if config.task_type == "text-generation" else "model"
    missing = [name for name, part in (("dataset", dataset), (socket, model)) if part is None]
    if missing:
        lines.append(f"Connect {' and '.join(missing)} to this node to see the values and the reasons for them.")
    if elsewhere:
        pairs = ", ".join(f"{name} = {value}" for name, value in elsewhere.items())
        lines.append(f"Ignored in config_yaml, because other nodes decide here: {pairs}")
    missing_in_yaml = "" if dataset is None else dataset.not_in_folder
    lines += note_lines((*warnings, *remarks, *filter(None, [missing_in_yaml])))
    return Summary("\n".join(lines), to_yaml(config, reasons, missing_in_yaml), chosen)


def _given(config: TrainingConfig) -> list[str]:
    """List the settings of the training itself that differ from their defaults."""
    defaults = TrainingConfig()
    elsewhere = set(OF_OTHER_NODES)
    if config.task_type == "text-generation":
        elsewhere -= {*RowSettings.model_fields, "chat_template", "load_in_4bit"}  # no dataset's report has them
    return [
        f"  {name} = {str(getattr(config, name)).replace(NEW_LINE, INDENTED)}"
        for name in SETTINGS
        if name not in elsewhere and getattr(config, name) != getattr(defaults, name)
    ] or ["  nothing"]


def _open(config: TrainingConfig, model: ModelFacts | None) -> Iterator[str]:
    """Yield the names of the settings on auto that have an effect."""
    is_text = config.task_type == "text-generation"
    for name in DECIDED_BY:
        if getattr(config, name) not in (None, "auto"):
            continue
        if SETTINGS[name].task not in (None, config.task_type) or (is_text and name == "purpose"):
            continue
        if name == "max_train_steps" and config.epochs is not None:
            continue
        if name == "lr_warmup_steps" and config.lr_warmup_ratio is not None:
            continue
        if name == "text_encoder_learning_rate" and not config.train_text_encoder:
            continue
        if name == "timestep_shift" and model is not None and model.prediction_type != "flow":
            continue
        yield name
