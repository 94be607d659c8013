"""Which of ComfyUI's models can be trained on images and captions, and what they are trained to predict."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_sampling
import torch

from ...errors import CrucibleError
from ..diffusion.objective import Objective

_NOT_TRAINABLE = {
    "makes sound, and is not trained on images": (
        "StableAudio1",
        "StableAudio3",
        "ACEStep",
        "ACEStep15",
        "MiniMaxMusic3",
        "LTXAV",
        "MiniMaxH3",
    ),
    "makes three-dimensional shapes": ("Hunyuan3Dv2", "Hunyuan3Dv2_1", "Trellis2", "TripoSplat"),
    "analyses pictures and makes none": ("RT_DETR_v4", "DepthAnything3", "SAM3", "Lotus"),
    "starts from a picture, not from a caption alone": (
        "SVD_img2vid",
        "SV3D_u",
        "SV3D_p",
        "Stable_Zero123",
        "SD21UNCLIP",
        "SD15_instructpix2pix",
        "SDXL_instructpix2pix",
    ),
    "makes pictures larger or sharper": (
        "SD_X4Upscaler",
        "SeedVR2",
        "PiD",
        "HunyuanImage21Refiner",
        "HunyuanVideo15_SR_Distilled",
        "SDXLRefiner",
    ),
    "is one of two stages that are trained in another way": ("StableCascade_B", "StableCascade_C"),
}

_INSTEAD = (
    "Train on the text-to-image or text-to-video model of the same family: its LoRA often works on this one too, "
    "because they share their layers."
)


def require_trainable(model: Any) -> None:
    """Raise unless the model makes pictures from captions alone.

    Args:
        model: ComfyUI's `BaseModel`.

    Raises:
        CrucibleError: it makes something else, or needs a further picture, as inpainting, editing and
            image-to-video models do.
    """
    name = type(model).__name__
    for what, names in _NOT_TRAINABLE.items():
        if name in names:
            raise CrucibleError(
                f"The connected model is a {name}, which {what}. Images with captions cannot train it. {_INSTEAD}"
            )
    if model.latent_format.latent_dimensions not in (2, 3):
        raise CrucibleError(
            f"The connected model is a {name}, which makes neither pictures nor video, so images cannot train it."
        )
    if isinstance(model, comfy.model_base.WAN21) and name not in ("WAN21", "WAN22"):
        raise CrucibleError(
            f"The connected model is a {name}, a Wan model that is steered by more than a caption (a pose, a voice, a "
            f"camera path, a reference). The dataset has nothing of that kind. {_INSTEAD}"
        )
    if extra := _extra_channels(model):
        raise CrucibleError(
            f"The connected model ({name}) is an inpainting, editing or image-to-video model: besides the noisy "
            f"picture it takes {extra}. The dataset has nothing to give there. {_INSTEAD}"
        )


def _extra_channels(model: Any) -> str:
    """What the model wants to have next to the latent, in words; empty for a model that wants nothing."""
    if model.concat_keys:
        return ", ".join(model.concat_keys)
    spatial = (1, 2, 2) if model.latent_format.latent_dimensions == 3 else (2, 2)
    latent = torch.zeros(1, model.latent_format.latent_channels, *spatial)
    further = model.concat_cond(noise=latent, device=latent.device)
    return "" if further is None else f"{further.shape[1]} further channels"


def objective_of(model_sampling: Any) -> Objective:
    """The objective of ComfyUI's sampling class.

    Raises:
        CrucibleError: for the kinds that no image model in use is trained with.
    """
    kinds = comfy.model_sampling
    special = (kinds.EDM, kinds.X0, kinds.V_PREDICTION_DDPM, kinds.IMG_TO_IMG_FLOW, kinds.StableCascadeSampling)
    # Noise of another size than 1, as HiDream-O1 has, is another task.
    ordinary = not isinstance(model_sampling, special) and getattr(model_sampling, "noise_scale", 1.0) == 1.0
    if ordinary:
        if isinstance(model_sampling, kinds.CONST | kinds.COSMOS_RFLOW):
            return Objective.FLOW
        if isinstance(model_sampling, kinds.ModelSamplingDiscrete):
            if isinstance(model_sampling, kinds.V_PREDICTION):
                return Objective.VELOCITY
            if isinstance(model_sampling, kinds.EPS):
                return Objective.EPSILON
    names = "/".join(kind.__name__ for kind in type(model_sampling).__mro__[1:3])
    raise CrucibleError(
        f"This model samples by {names}, for which no training objective is known here, so its LoRA would come out "
        "wrong. Noise-, velocity- and flow-predicting models can be trained: SD1.5, SDXL, SD3, Flux, Qwen-Image and "
        "most others. If a node between the loader and Train LoRA changed the sampling, connect the model before it."
    )
