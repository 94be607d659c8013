"""Images of a base model without and with LoRAs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...errors import CrucibleError
from ...formats.delta import kind_of
from ...merging.ingredients import Strengths
from ...merging.merge import Ingredient
from ..applied_loras import applied, combined, ingredient
from ..base import BaseModel
from ..previews import Samples, Sampling


@dataclass(frozen=True)
class Drawn:
    """Images of the same prompts and seeds.

    Attributes:
        of_base: the images of the base model, float32 (prompts, height, width, 3) in 0..1.
        with_loras: those with the LoRAs; None if there are none.
    """

    of_base: Tensor
    with_loras: Tensor | None


def draw_side_by_side(base_model: BaseModel, loras: Sequence[Strengths], sampling: Sampling) -> Drawn:
    """Draw images of a base model, and of the same model with LoRAs. The model's session must be open.

    Raises:
        CrucibleError: a LoRA does not fit the model, is a DoRA that would have to be merged, or the model cannot be
            sampled with these settings.
    """
    used = [ingredient(one, base_model) for one in loras]
    used = [one for one in used if one.strength_model or one.strength_clip]
    _refuse_merged_doras(used)
    previewer = base_model.previewer
    previewer.require(sampling)
    previewer.prepare([sampling])
    of_base = _pictures(previewer.draw(sampling))
    if not used:
        return Drawn(of_base, None)
    with applied(base_model, combined(used, None), "attention"):
        return Drawn(of_base, _pictures(previewer.draw(sampling)))


def _refuse_merged_doras(loras: Sequence[Ingredient]) -> None:
    alone = len(loras) == 1 and loras[0].strength_model == loras[0].strength_clip == 1
    doras = [one.name for one in loras if any(kind_of(layer) == "dora" for layer in one.lora.layers.values())]
    if doras and not alone:
        raise CrucibleError(
            f"{doras[0]} is a DoRA, which can only be sampled here alone and with a strength of 1, because anything "
            "else depends on the weights of the base model. Merge it first: merge with --base, then sample the "
            "result.",
            "model",
        )


def _pictures(samples: Samples) -> Tensor:
    assert isinstance(samples, Tensor)
    return samples
