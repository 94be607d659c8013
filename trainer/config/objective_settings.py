"""The settings of the training objective: which noise levels are trained, and how errors are penalized."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting

LossWeighting = Literal["none", "min_snr", "debiased"]
LossType = Literal["mse", "huber", "l1"]
TimestepSampling = Literal["auto", "uniform", "logit_normal", "mode"]


class ObjectiveSettings(BaseModel):
    """The settings that define the loss of a noisy image, part of every `TrainingConfig`.

    Used on their own, without `resolve`, settings on auto stand for the plain objective.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss_weighting: LossWeighting | None = setting(
        None,
        "Loss weighting",
        "How much each noise level counts, for models that predict noise or velocity (SD1.5, SDXL). min_snr gives "
        "less weight to images with little noise, which learns faster; debiased gives more weight to strong noise, "
        "which shapes the composition. auto is min_snr for styles and concepts, otherwise none.",
        group="objective",
        value_aliases={"debiased_estimation": "debiased"},
    )
    min_snr_gamma: float = setting(
        5.0,
        "Min-SNR gamma",
        "Signal-to-noise ratio above which min_snr reduces the weight of an image. Lower reduces more; 5 is usual.",
        group="objective",
        step=0.5,
        aliases=("snr_gamma",),
        gt=0.0,
        le=100.0,
    )
    loss_type: LossType = setting(
        "mse",
        "Loss",
        "How errors are penalized: squared (mse), absolute (l1), or squared up to a limit and linear above it "
        "(huber). huber and l1 are affected less by outliers.",
        group="objective",
        value_aliases={"l2": "mse"},
    )
    huber_delta: float = setting(
        0.1,
        "Huber limit",
        "Error above which huber is linear instead of squared. Lower is closer to l1, higher to mse.",
        group="objective",
        step=0.05,
        aliases=("huber_c",),
        gt=0.0,
        le=100.0,
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Adds noise that makes a whole image brighter or darker, so that very bright and very dark images can be "
        "learned. 0 turns it off; 0.03 to 0.1 is usual for SD1.5 and SDXL.",
        group="objective",
        step=0.01,
        ge=0.0,
        le=1.0,
    )
    timestep_sampling: TimestepSampling = setting(
        "auto",
        "Noise levels",
        "Which noise levels are trained most often: all equally (uniform), the middle ones (logit_normal, also called "
        "sigmoid), or as set by mode_scale (mode). auto is logit_normal for flow models, otherwise uniform.",
        group="objective",
        value_aliases={"sigmoid": "logit_normal"},
    )
    logit_mean: float = setting(
        0.0,
        "Logit mean",
        "Center of logit_normal: below 0 trains low noise more often, above 0 high noise.",
        group="objective",
        step=0.1,
        ge=-10.0,
        le=10.0,
    )
    logit_std: float = setting(
        1.0,
        "Logit spread",
        "Width of logit_normal: lower stays closer to its center, higher spreads over all noise levels.",
        group="objective",
        step=0.1,
        aliases=("sigmoid_scale",),
        gt=0.0,
        le=10.0,
    )
    mode_scale: float = setting(
        1.29,
        "Mode scale",
        "Emphasis of mode: above 0 trains the middle noise levels more often, below 0 the lowest and highest.",
        group="objective",
        step=0.01,
        ge=-1.0,
        le=1.75,
    )
    timestep_shift: float | None = setting(
        None,
        "Noise shift",
        "Shifts the timesteps of a flow model towards more noise, which larger images need: 3 is usual at 1024 "
        "pixels, 1 is no shift. auto depends on the image size, as it does when the model samples.",
        group="objective",
        step=0.1,
        aliases=("discrete_flow_shift",),
        gt=0.0,
        le=100.0,
    )
