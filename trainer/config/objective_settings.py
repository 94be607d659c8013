"""The settings of what a diffusion model is trained for: how much noise, and what an error costs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting

LossWeighting = Literal["none", "min_snr", "debiased"]
LossType = Literal["mse", "huber", "l1"]
TimestepSampling = Literal["auto", "uniform", "logit_normal", "mode"]


class ObjectiveSettings(BaseModel):
    """What the loss of a noisy image is. Part of every `TrainingConfig`; by itself, auto is plain training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss_weighting: LossWeighting | None = setting(
        None,
        "Loss weighting",
        "How much each noise level counts, for models that predict noise or velocity (SD1.5, SDXL). min_snr holds "
        "back images with little noise, which learns faster; debiased counts strong noise more, which is for the "
        "composition. auto is min_snr for styles and concepts, else none.",
        group="training",
        advanced=True,
        value_aliases={"debiased_estimation": "debiased"},
    )
    min_snr_gamma: float = setting(
        5.0,
        "Min-SNR gamma",
        "Signal-to-noise ratio from which min_snr holds images back. Lower holds back more.",
        group="training",
        advanced=True,
        step=0.5,
        aliases=("snr_gamma",),
        gt=0.0,
        le=100.0,
    )
    loss_type: LossType = setting(
        "mse",
        "Loss",
        "How an error counts: squared (mse), squared up to a limit and straight beyond (huber), or straight (l1). "
        "huber and l1 give way less to single odd images.",
        group="training",
        advanced=True,
        value_aliases={"l2": "mse"},
    )
    huber_delta: float = setting(
        0.1,
        "Huber limit",
        "Error from which huber counts straight instead of squared.",
        group="training",
        advanced=True,
        step=0.05,
        aliases=("huber_c",),
        gt=0.0,
        le=100.0,
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Noise that shifts a whole image brighter or darker, so that very bright and dark images can be learned. 0 is "
        "off, 0.03 to 0.1 is usual for SD1.5 and SDXL.",
        group="training",
        advanced=True,
        step=0.01,
        ge=0.0,
        le=1.0,
    )
    timestep_sampling: TimestepSampling = setting(
        "auto",
        "Noise levels",
        "Which noise levels are trained most: all alike (uniform), the middle (logit_normal, also called sigmoid) or "
        "an emphasis of its own (mode). auto is uniform, and logit_normal for flow models.",
        group="training",
        advanced=True,
        value_aliases={"sigmoid": "logit_normal"},
    )
    logit_mean: float = setting(
        0.0,
        "Logit mean",
        "Centre of logit_normal: below 0 little noise is trained more, above 0 much noise.",
        group="training",
        advanced=True,
        step=0.1,
        ge=-10.0,
        le=10.0,
    )
    logit_std: float = setting(
        1.0,
        "Logit spread",
        "Width of logit_normal: lower keeps to the centre.",
        group="training",
        advanced=True,
        step=0.1,
        aliases=("sigmoid_scale",),
        gt=0.0,
        le=10.0,
    )
    mode_scale: float = setting(
        1.29,
        "Mode scale",
        "Emphasis of mode: above 0 on the middle, below 0 on the ends.",
        group="training",
        advanced=True,
        step=0.01,
        ge=-1.0,
        le=1.75,
    )
    timestep_shift: float | None = setting(
        None,
        "Noise shift",
        "Moves the noise levels of a flow model towards more noise, as larger images need: 3 is usual at 1024 "
        "pixels, 1 is none. auto does it by image size, as the model samples.",
        group="training",
        advanced=True,
        step=0.1,
        aliases=("discrete_flow_shift",),
        gt=0.0,
        le=100.0,
    )
