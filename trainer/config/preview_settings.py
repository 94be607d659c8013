"""The settings of the samples that are drawn during training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from .setting import setting


class PreviewSettings(BaseModel):
    """The samples of a run, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_prompts: str = setting(
        "",
        "Sample prompts",
        "Prompts for the samples made during training, one per line. If empty, the first captions or prompts of the "
        "dataset are used.",
        group="main",
        multiline=True,
    )
    sample_negative_prompt: str = setting(
        "",
        "Negative prompt",
        "What samples should not show. Only affects models that are sampled with a CFG above 1.",
        group="samples",
        task="text-to-image",
        instead="samples of a language model are the answers that it finds likeliest",
        multiline=True,
    )
    sample_every_n_steps: int | None = setting(
        None,
        "Sample every",
        "Steps between two rounds of samples. Lower shows progress more often, but takes more time.",
        group="samples",
        step=1,
        ge=1,
        le=1_000_000,
    )
    sample_steps: int = setting(
        20,
        "Sampling steps",
        "Sampler steps for each sample. Higher takes more time.",
        group="samples",
        task="text-to-image",
        instead="samples of a language model are the answers that it finds likeliest",
        step=1,
        ge=1,
        le=200,
    )
    sample_cfg: float | None = setting(
        None,
        "Sample CFG",
        "Guidance scale of samples: higher follows the prompt more closely.",
        group="samples",
        task="text-to-image",
        instead="samples of a language model are the answers that it finds likeliest",
        step=0.5,
        gt=0,
        le=100,
    )
    sample_sampler: str = setting(
        "euler",
        "Sampler",
        "The sampler for samples, by its name in ComfyUI.",
        group="samples",
        task="text-to-image",
        instead="samples of a language model are the answers that it finds likeliest",
    )
    sample_scheduler: str = setting(
        "normal",
        "Scheduler",
        "The scheduler (noise schedule) for samples, by its name in ComfyUI.",
        group="samples",
        task="text-to-image",
        instead="samples of a language model are the answers that it finds likeliest",
    )
