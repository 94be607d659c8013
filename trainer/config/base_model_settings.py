"""The settings of a base model that is a file instead of a folder, for runs on the command line."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting

Loader = Literal["auto", "comfyui", "diffusers"]


class BaseModelSettings(BaseModel):
    """The files that belong to a base model, and the program that opens them, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Loader = setting(
        "auto",
        "Loader",
        "The program that opens the base model on the command line. auto takes ComfyUI for single files if there is "
        "one (COMFYUI_PATH), and otherwise diffusers.",
        group="run",
        task="text-to-image",
        instead="language models are opened by transformers",
    )
    text_encoders: str | None = setting(
        None,
        "Text encoders",
        "The files of the text encoders, one per line or as a list, for a base model whose file has none.",
        group="run",
        task="text-to-image",
        instead="a language model has its text encoder in itself",
        multiline=True,
        path="path",
        aliases=("text_encoder_path", "clip_path"),
    )
    clip_type: str | None = setting(
        None,
        "CLIP type",
        "What the text encoders are for, as ComfyUI's Load CLIP calls it: sd3, flux, wan and so on. If empty, it "
        "follows from the base model.",
        group="run",
        task="text-to-image",
        instead="language models have none",
    )
    vae: str | None = setting(
        None,
        "VAE",
        "The file of the VAE, for a base model whose file has none, or to use another one.",
        group="run",
        task="text-to-image",
        instead="language models have none",
        path="path",
        aliases=("vae_path", "vae_model", "ae"),
    )

    @property
    def text_encoder_files(self) -> tuple[str, ...]:
        """The files of the text encoders, as they were written."""
        lines = (self.text_encoders or "").splitlines()
        return tuple(filter(None, (name.strip() for name in lines)))
