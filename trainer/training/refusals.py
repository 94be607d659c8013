"""Everything that a run would refuse about its settings and its model, found before anything is encoded."""

from __future__ import annotations

from ..adapters.spec import AdapterSpec
from ..models.base import BaseModel
from .plan import RunPlan
from .previews import sampling_of


def refuse_unsuitable(base_model: BaseModel, plan: RunPlan) -> dict[str, str]:
    """Check that the base model can be trained and sampled with the settings of a plan.

    Args:
        base_model: the base model, in its session or without weights.
        plan: the plan of the run.

    Returns:
        The reasons for values that the base model chose itself, by the name of the setting.

    Raises:
        CrucibleError: the settings do not suit the model, it has none of the layers to train, or it cannot be sampled
            with this sampler.
    """
    config = plan.config
    reasons = base_model.prepare_losses(config)
    base_model.previewer.require(sampling_of(config, plan.dataset))
    layers = {} if plan.initial is None else plan.initial.layers
    with base_model.attached(AdapterSpec.of(config, layers), gradient_checkpointing=False):
        return reasons
