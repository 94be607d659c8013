"""A diffusers pipeline taken apart: its UNet, VAE and text encoders, and what they make of captions and images."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ...hardware.out_of_memory import Attempt, first_that_fits
from ..diffusion.inputs import Encoders
from ..identity import weights_hash

log = logging.getLogger(__name__)

Encoded = tuple[Tensor, Tensor | None]
"""A text embedding (77, width), and SDXL's pooled embedding (width,), which is None for SD1.5."""


class Pipeline:
    """The parts of a diffusers pipeline of SD1.5 or SDXL.

    Args:
        folder: the folder with its model_index.json.
        weights: whether to load the weights. Without them, the denoiser and the text encoders have only their layers,
            on the device "meta", and there is no VAE.

    Attributes:
        whole: the pipeline itself.
        device: the device that it is used on.
        trains_text: whether its text encoders are trained, so that they stay on the device.
    """

    def __init__(self, folder: Path, *, weights: bool = True) -> None:
        self.trains_text = False
        if not weights:
            self.whole: Any = _layers(folder)
            self.device = torch.device("meta")
            return
        self.whole = DiffusionPipeline.from_pretrained(
            folder, local_files_only=True, safety_checker=None, requires_safety_checker=False
        )
        self.whole.set_progress_bar_config(disable=True)
        # Always float32: SDXL's VAE produces NaN in float16, and with the dtype from their files, the text encoders'
        # identity would differ before and after the first session.
        for part in (self.unet, self.vae, *self.text_encoders().values()):
            if part.dtype != torch.float32:
                part.to(torch.float32)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.whole.unet

    @property
    def vae(self) -> Any:
        """The image encoder and decoder."""
        return self.whole.vae

    def text_encoders(self) -> dict[str, nn.Module]:
        """Return the text encoders by their names in the pipeline."""
        parts = {name: getattr(self.whole, name, None) for name in ("text_encoder", "text_encoder_2")}
        return {name: part for name, part in parts.items() if part is not None}

    def text_encoders_by_prefix(self) -> dict[str, nn.Module]:
        """Return the text encoders by the prefix of their keys in a LoRA file."""
        encoders = list(self.text_encoders().values())
        prefixes = ["lora_te"] if len(encoders) == 1 else ["lora_te1", "lora_te2"]
        return dict(zip(prefixes, encoders, strict=True))

    def encode(self, text: str) -> Encoded:
        """Encode a caption to tensors on the CPU."""
        embedding, pooled = self.encode_on_device(text)
        return embedding.cpu(), None if pooled is None else pooled.cpu()

    def encode_on_device(self, text: str) -> Encoded:
        """Encode a caption, with gradients where they are enabled. diffusers truncates captions to 75 tokens.

        `\\(` and `\\)` mean parentheses, as in ComfyUI and A1111, where others are weights.
        """
        text = text.replace(r"\(", "(").replace(r"\)", ")")
        embedding, _, *pooled = self.whole.encode_prompt(
            text, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return embedding[0], pooled[0][0] if pooled else None

    def added_conditions(self, pooled: list[Tensor | None], latents: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return SDXL's additional conditioning: pooled text embeddings and image sizes; empty for SD1.5.

        Args:
            pooled: the pooled embedding of each row.
            latents: the latents (rows, channels, height, width).
            dtype: the dtype of the result.
        """
        if pooled[0] is None:
            return {}
        height, width = (side * self.whole.vae_scale_factor for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width]).expand(len(pooled), -1)
        return {
            "text_embeds": torch.stack([one for one in pooled if one is not None]).to(self.device, dtype),
            "time_ids": sizes.to(self.device, dtype),
        }

    def load_encoders(self) -> None:
        """Move the VAE and the text encoders to the device."""
        for part in (self.vae, *self.text_encoders().values()):
            part.to(self.device)

    def release_encoders(self) -> None:
        """Move the VAE to the host, and the text encoders too unless they are trained."""
        for part in [self.vae] if self.trains_text else [self.vae, *self.text_encoders().values()]:
            part.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _layers(folder: Path) -> SimpleNamespace:
    """Return the denoiser and the text encoders of a diffusers folder without their weights."""
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        }
        for name, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
            if (folder / name).is_dir():
                parts[name] = kind(CLIPTextConfig.from_pretrained(folder / name))
    return SimpleNamespace(**parts)


class PipelineEncoders(Encoders):
    """The encoders of a diffusers pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.vae_identity = weights_hash(pipeline.vae.state_dict().items())
        hashes = [weights_hash(encoder.state_dict().items()) for encoder in pipeline.text_encoders().values()]
        self.text_identity = "diffusers|" + "|".join(hashes)

    def latent(self, pixels: Tensor, name: str) -> Tensor:
        rows = pixels.permute(2, 0, 1).unsqueeze(0).to(self._pipeline.device)
        outcome = first_that_fits(
            [
                Attempt("in one piece", partial(self._latent, rows)),
                Attempt("in tiles", partial(self._latent_in_tiles, rows)),
            ]
        )
        if len(outcome.tried) > 1:
            log.warning("There is not enough memory to encode %s in one piece, so the VAE encodes it in tiles.", name)
        return outcome.required()

    def _latent_in_tiles(self, rows: Tensor) -> Tensor:
        self._pipeline.vae.enable_tiling()
        try:
            return self._latent(rows)
        finally:
            self._pipeline.vae.disable_tiling()

    def _latent(self, rows: Tensor) -> Tensor:
        vae = self._pipeline.vae
        latent: Tensor = vae.encode(rows * 2 - 1).latent_dist.mode()[0] * vae.config.scaling_factor
        return latent.cpu()

    def caption(self, text: str) -> Encoded:
        return self._pipeline.encode(text)
