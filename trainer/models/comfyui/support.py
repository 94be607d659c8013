"""Checks of which ComfyUI models can be trained on images and captions, and what they are trained to predict."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_sampling
import torch

from ...errors import CrucibleError
from ..diffusion.objective import PredictionType

_NOT_TRAINABLE = {
    "generates audio and is not trained on images": (
        "StableAudio1",
        "StableAudio3",
        "ACEStep",
        "ACEStep15",
        "MiniMaxMusic3",
        "LTXAV",
        "MiniMaxH3",
    ),
    "generates 3D shapes": ("Hunyuan3Dv2", "Hunyuan3Dv2_1", "Trellis2", "TripoSplat"),
    "analyzes images and does not generate any": ("RT_DETR_v4", "DepthAnything3", "SAM3", "Lotus"),
    "starts from an image, not from a caption alone": (
        "SVD_img2vid",
        "SV3D_u",
        "SV3D_p",
        "Stable_Zero123",
        "SD21UNCLIP",
        "SD15_instructpix2pix",
        "SDXL_instructpix2pix",
    ),
    "makes images larger or sharper": (
        "SD_X4Upscaler",
        "SeedVR2",
        "PiD",
        "HunyuanImage21Refiner",
        "HunyuanVideo15_SR_Distilled",
        "SDXLRefiner",
    ),
    "is one of two stages that are trained in a different way": ("StableCascade_B", "StableCascade_C"),
}

_INSTEAD = (
    "Train on the text-to-image or text-to-video model of the same family instead. Such a LoRA often works with this "
    "model too, because the two share their layers."
)


def require_trainable(model: Any) -> None:
    """Raise unless the model generates images or video from captions alone.

    Args:
        model: ComfyUI's `BaseModel`.

    Raises:
        CrucibleError: the model generates something else, or needs another image as input, as inpainting, editing and
            image-to-video models do.
    """
    name = type(model).__name__
    for what, names in _NOT_TRAINABLE.items():
        if name in names:
            raise CrucibleError(
                f"The connected model is a {name}, which {what}. It cannot be trained on images with captions. "
                f"{_INSTEAD}"
            )
    if model.latent_format.latent_dimensions not in (2, 3):
        raise CrucibleError(
            f"The connected model is a {name}, which generates neither images nor video, so it cannot be trained on "
            "images. Connect a text-to-image model."
        )
    if isinstance(model, comfy.model_base.WAN21) and name not in ("WAN21", "WAN22"):
        raise CrucibleError(
            f"The connected model is a {name}, a Wan model that is guided by more than a caption (a pose, a voice, a "
            f"camera path, a reference). The dataset contains none of these. {_INSTEAD}"
        )
    if extra := _extra_channels(model):
        raise CrucibleError(
            f"The connected model ({name}) is an inpainting, editing or image-to-video model: besides the noisy "
            f"image it needs {extra}, which the dataset does not contain. {_INSTEAD}"
        )


def _extra_channels(model: Any) -> str:
    """Describe the inputs that the model needs besides the latent; empty if it needs none."""
    if model.concat_keys:
        return ", ".join(model.concat_keys)
    spatial = (1, 2, 2) if model.latent_format.latent_dimensions == 3 else (2, 2)
    latent = torch.zeros(1, model.latent_format.latent_channels, *spatial)
    further = model.concat_cond(noise=latent, device=latent.device)
    return "" if further is None else f"{further.shape[1]} additional channels"


def objective_of(model_sampling: Any) -> PredictionType:
    """Return the training objective that belongs to a model's sampling object in ComfyUI.

    Raises:
        CrucibleError: no training objective is known for this type of sampling.
    """
    kinds = comfy.model_sampling
    special = (kinds.EDM, kinds.X0, kinds.V_PREDICTION_DDPM, kinds.IMG_TO_IMG_FLOW, kinds.StableCascadeSampling)
    # Noise with a scale other than 1, as in HiDream-O1, would need a different objective.
    ordinary = not isinstance(model_sampling, special) and getattr(model_sampling, "noise_scale", 1.0) == 1.0
    if ordinary:
        if isinstance(model_sampling, kinds.CONST | kinds.COSMOS_RFLOW):
            return PredictionType.FLOW
        if isinstance(model_sampling, kinds.ModelSamplingDiscrete):
            if isinstance(model_sampling, kinds.V_PREDICTION):
                return PredictionType.VELOCITY
            if isinstance(model_sampling, kinds.EPS):
                return PredictionType.EPSILON
    names = "/".join(kind.__name__ for kind in type(model_sampling).__mro__[1:3])
    raise CrucibleError(
        f"This model uses the sampling type {names}, for which no training objective is known, so its LoRA would come "
        "out wrong. Models that predict noise, velocity or flow can be trained: SD1.5, SDXL, SD3, Flux, Qwen-Image and "
        "most others. If a node between the loader and Train LoRA changed the sampling, connect the model from before "
        "that node."
    )
