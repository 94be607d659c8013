"""Everything that a run would refuse about its settings and its model, found before anything is encoded."""

from __future__ import annotations

from pathlib import Path

from ..adapters.spec import AdapterSpec
from ..errors import errors_about
from ..memory.storage import Room, require_room
from ..models.base import BaseModel
from .plan import RunPlan
from .previews import sampling_of


def refuse_unsuitable(base_model: BaseModel, plan: RunPlan, folder: Path) -> tuple[dict[str, str], Room]:
    """Check that the base model can be trained and sampled with the settings of a plan, and that the result has room.

    Args:
        base_model: the base model, in its session or without weights.
        plan: the plan of the run.
        folder: the folder that the run is stored in; it need not exist.

    Returns:
        The reasons for values that the base model chose itself, by the name of the setting; and the room that the run
        needs.

    Raises:
        CrucibleError: the settings do not suit the model, it has none of the layers to train, it cannot be sampled
            with this sampler, or the disk has no room for the result.
    """
    config = plan.config
    layers = {} if plan.initial is None else plan.initial.layers
    with errors_about("settings"):
        reasons = base_model.prepare_losses(config)
        base_model.previewer.require(sampling_of(config, plan.dataset))
        with base_model.attached(AdapterSpec.of(config, layers), gradient_checkpointing=False) as adapters:
            return reasons, require_room(folder, adapters.size, config)
