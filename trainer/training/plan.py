"""The plan of a run: its settings, its examples, and the LoRA that it starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..config import ModelFacts, ResolvedConfig, TrainingConfig
from ..data.base import Dataset
from ..errors import errors_about
from ..models.base import BaseModel
from ..models.initial_lora import InitialLora, load_initial_lora
from ..planning.plan import Plan, make_plan
from .regularization import with_prompts_to_answer


@dataclass(frozen=True)
class RunPlan:
    """Everything that is decided before a run starts.

    Attributes:
        plan: the dataset, its examples and the settings.
        given: the settings as the user gave them.
        asked: the user's settings, completed with those that the initial LoRA decides.
        model: the facts about the base model.
        identity: the hash of the base model's weights.
        initial: the LoRA that training starts from; None to start from zero.
        notes: sentences for the report.
    """

    plan: Plan
    given: TrainingConfig
    asked: TrainingConfig
    model: ModelFacts
    identity: str
    initial: InitialLora | None
    notes: tuple[str, ...]

    @property
    def config(self) -> ResolvedConfig:
        """The settings, with every automatic value resolved."""
        return self.plan.resolved.values

    @property
    def dataset(self) -> Dataset:
        """The dataset, with the examples for validation held out."""
        return self.plan.dataset

    def with_notes(self, *notes: str) -> RunPlan:
        """Return the plan with these notes placed before its own."""
        return replace(self, notes=(*notes, *self.notes))

    def at_resolution(self, resolution: int | None) -> RunPlan:
        """Return the plan at a lower resolution, with a note that says so.

        If the resolution is None or not lower than that of the plan, the plan is returned unchanged.
        """
        before = self.config.resolution
        if resolution is None or before is None or resolution >= before:
            return self
        asked = self.asked.model_copy(update={"resolution": resolution})
        plan = make_plan(asked, self.dataset.at_resolution(resolution), self.model)
        note = f"Trained at resolution {resolution}, because there was not enough memory for {before}."
        return replace(self, plan=plan).with_notes(note)


def plan_run(base_model: BaseModel, dataset: Dataset, config: TrainingConfig) -> RunPlan:
    """Decide everything that the config leaves open.

    Raises:
        CrucibleError: the dataset cannot be trained, the settings contradict each other or the model, or the LoRA to
            start from does not fit the model.
    """
    with errors_about("data"):
        dataset = base_model.prepare_dataset(with_prompts_to_answer(base_model, dataset, config))
        dataset.require_trainable()
    with errors_about("model"):
        initial = load_initial_lora(config, base_model)
    with errors_about("settings"):
        asked = config if initial is None else initial.settings(config)
        plan = make_plan(asked, dataset, base_model.facts)
    notes = (*base_model.warnings(), *(() if initial is None else initial.notes), *plan.notes)
    return RunPlan(plan, config, asked, base_model.facts, base_model.identity(), initial, notes)
