"""A base model made from a diffusers pipeline, for training without ComfyUI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...adapters.adapters import (
    AdaptedLayer,
    Adapters,
    AdapterSpec,
    adapter_layers,
    adapter_parameters,
    choose_layers,
    inject,
)
from ...adapters.dropout import RowSeeds
from ...adapters.targets import is_adaptable
from ...data.cache import TensorCache
from ...data.images.samples import Sample
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES
from ...formats.layer_names import file_key, text_encoder_key
from ...formats.lora_file import read_lora
from ...formats.names import Place, place_of
from ...hardware.device_memory import out_of_memory_freed
from ..base import DTYPES, CachedExample, Precision, Progress, RowLosses, Sampling, weights_hash
from ..diffusion.inputs import Encoders, Inputs, cached_samples, stacked
from ..diffusion.model import DiffusionBaseModel, diffusion_losses
from ..diffusion.objective import PredictionType
from .folder import read_folder
from .verify import unmatched_keys

log = logging.getLogger(__name__)

_SAMPLERS = {
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
}
_Encoded = tuple[Tensor, Tensor | None]


class _PipelineEncoders(Encoders):
    """The encoders of a diffusers pipeline.

    Args:
        vae: the VAE of the pipeline.
        text_encoders: the text encoders, for their hash.
        device: the device of the VAE.
        encode: a function that encodes a caption with the text encoders.
    """

    def __init__(
        self, vae: Any, text_encoders: Iterable[nn.Module], device: torch.device, encode: Callable[[str], _Encoded]
    ) -> None:
        self._vae, self._device, self._encode = vae, device, encode
        self.vae_identity = weights_hash(vae.state_dict().items())
        hashes = [weights_hash(encoder.state_dict().items()) for encoder in text_encoders]
        self.text_identity = "diffusers|" + "|".join(hashes)

    def latent(self, pixels: Tensor, name: str) -> Tensor:
        rows = pixels.permute(2, 0, 1).unsqueeze(0).to(self._device)
        with out_of_memory_freed():
            return self._latent(rows)
        log.warning("There is not enough memory to encode %s in one piece, so the VAE encodes it in tiles.", name)
        self._vae.enable_tiling()
        try:
            return self._latent(rows)
        finally:
            self._vae.disable_tiling()

    def _latent(self, rows: Tensor) -> Tensor:
        latent: Tensor = self._vae.encode(rows * 2 - 1).latent_dist.mode()[0] * self._vae.config.scaling_factor
        return latent.cpu()

    def caption(self, text: str) -> Any:
        return self._encode(text)


@contextmanager
def _adapted(
    model: nn.Module, spec: AdapterSpec, key_of: Callable[[str], str], rows: RowSeeds
) -> Iterator[dict[str, AdaptedLayer]]:
    """Put peft's adapter layers on a model inside the context, with float32 weights, and yield them by file key."""
    chosen = choose_layers(spec, model.named_modules(), key_of)
    try:
        layers = inject(model, chosen, spec.dropout, key_of, rows)
        for layer in layers.values():
            for _, parameter in adapter_parameters(layer):
                parameter.data = parameter.data.float()
        yield {key_of(path): AdaptedLayer(layer, partial(_base_weight, layer)) for path, layer in layers.items()}
    finally:
        for path, layer in adapter_layers(model).items():
            model.set_submodule(path, layer.get_base_layer())
        model.__dict__.pop("peft_config", None)


def _base_weight(layer: Any) -> Tensor:
    return layer.get_base_layer().weight.detach().float()


class DiffusersBaseModel(DiffusionBaseModel):
    """SD1.5 or SDXL from a diffusers folder, or the demo model.

    Args:
        base_model: a folder with a model_index.json, or "demo".
        check_interrupt: a function called before each batch and each sample; it may raise to stop the training.

    Raises:
        CrucibleError: there is no such folder, or it contains another kind of model.
    """

    def __init__(self, base_model: str, check_interrupt: Callable[[], None] = lambda: None) -> None:
        self._check_interrupt = check_interrupt
        folder = read_folder(base_model)
        # Always float32: SDXL's VAE produces NaN in float16, and with the dtype from their files, the text encoders'
        # identity would differ before and after the first session.
        self._pipeline: Any = DiffusionPipeline.from_pretrained(
            folder.path,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
            torch_dtype=torch.float32,
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._unet: Any = self._pipeline.unet
        self._warnings = folder.warnings
        self.name = folder.name
        self.architecture = ARCHITECTURES[folder.facts.architecture]
        self.native_resolution = folder.facts.native_resolution
        self.prediction_type = folder.facts.prediction_type
        self.objective = PredictionType(self.prediction_type)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._trains_text = False
        self._rows = RowSeeds()

    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    def own_shift(self, pixels: float) -> float:
        return 1.0  # none of these models is a flow model

    def identity(self) -> str:
        return weights_hash(self._unet.state_dict().items())

    def encoders_identity(self) -> str:
        return self._as_encoders().identity

    def _as_encoders(self) -> _PipelineEncoders:
        return _PipelineEncoders(self._pipeline.vae, self._text_encoders().values(), self.device, self._encode)

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Precision]:
        if mixed_precision == "auto":
            mixed_precision = "fp32"
            if self.device.type == "cuda":
                mixed_precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        compute = DTYPES[mixed_precision]
        for part in self._encoders():
            part.to(self.device)
        self._unet.to(self.device, compute).requires_grad_(False)
        signal = self._pipeline.scheduler.alphas_cumprod.double()
        self._sigmas = ((1 - signal) / signal).sqrt().float().to(self.device)
        self._compute = compute
        with torch.enable_grad():
            yield Precision(compute)

    def _encoders(self) -> list[nn.Module]:
        return [self._pipeline.vae, *self._text_encoders().values()]

    @torch.no_grad()
    def cache_inputs(
        self,
        samples: Sequence[Sample],
        cache: TensorCache,
        caption_dropout: float,
        progress: Progress,
        live_captions: bool = False,
    ) -> list[CachedExample]:
        return cached_samples(samples, self._as_encoders(), cache, caption_dropout, progress, live_captions)

    def _encode(self, text: str) -> _Encoded:
        embedding, pooled = self._encode_live(text)
        return embedding.cpu(), None if pooled is None else pooled.cpu()

    def _encode_live(self, text: str) -> _Encoded:
        """Return the text embedding (77, width) and SDXL's pooled embedding (width,), which is None for SD1.5.

        diffusers truncates captions to 75 tokens.
        """
        embedding, _, *pooled = self._pipeline.encode_prompt(
            text, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return embedding[0], pooled[0][0] if pooled else None

    def _encode_trained(self, text: str, seed: int) -> _Encoded:
        with self._rows.used([seed]):
            return self._encode_live(text)

    @torch.no_grad()
    def prepare_sampling(self, samplings: Sequence[Sampling]) -> None:
        for sampling in samplings:
            if sampling.sampler not in _SAMPLERS:
                raise CrucibleError(
                    f"sample_sampler is {sampling.sampler!r}, which is not available outside ComfyUI. Choose one of "
                    f"these: {', '.join(_SAMPLERS)}."
                )
        self._encode_prompts(samplings)

    def _encode_prompts(self, samplings: Sequence[Sampling]) -> None:
        prompts = dict.fromkeys(prompt for one in samplings for prompt in (one.negative, *one.prompts))
        self._prompts = {prompt: self._encode(prompt) for prompt in prompts}

    def release_encoders(self) -> None:
        for part in [self._pipeline.vae] if self._trains_text else self._encoders():
            part.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        unet = self._unet
        with ExitStack() as stack:
            layers = stack.enter_context(_adapted(unet, spec, self._key_of, self._rows))
            if spec.text_encoder:
                self._trains_text = True
                stack.callback(setattr, self, "_trains_text", False)
                for prefix, encoder in self._text_encoders_by_prefix().items():
                    encoder.to(self.device)
                    key_of = partial(text_encoder_key, prefix)
                    layers |= stack.enter_context(_adapted(encoder, spec.of_text_encoder, key_of, self._rows))
            stack.callback(self.set_checkpointing, False)
            self.set_checkpointing(gradient_checkpointing)
            unet.train()
            stack.callback(unet.eval)
            yield Adapters(layers)

    def _key_of(self, path: str) -> str:
        """Return the key in a LoRA file of a layer of the UNet."""
        return file_key(self.architecture, path, layers_per_block=self._unet.config.layers_per_block)

    def place_of(self, name: str) -> Place | None:
        return place_of(name, self.architecture)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        models = [(self._unet, self._key_of)]
        models += [
            (encoder, partial(text_encoder_key, prefix)) for prefix, encoder in self._text_encoders_by_prefix().items()
        ]
        return {
            key_of(path): tuple(module.weight.shape)
            for model, key_of in models
            for path, module in model.named_modules()
            if is_adaptable(module)
        }

    def set_checkpointing(self, on: bool) -> None:
        if on:
            self._unet.enable_gradient_checkpointing(self._checkpoint)
        else:
            self._unet.disable_gradient_checkpointing()

    def _checkpoint(self, block: nn.Module, *args: Any) -> Any:
        return checkpoint(block.__call__, *args, use_reentrant=False, context_fn=self._rows.checkpoint_contexts)

    def weights_size(self) -> tuple[int, int]:
        """Return the size of the UNet's weights in bytes, twice, because all of them are on the device.

        diffusers' group offloading, which moves layers to the host after use, does not work for training: it changes
        tensors that autograd has saved for backward.
        """
        size = sum(
            weight.numel() * weight.element_size() for weight in self._unet.parameters() if not weight.requires_grad
        )
        return size, size

    def _text_encoders(self) -> dict[str, nn.Module]:
        """Return the text encoders by their names in the pipeline."""
        parts = {name: getattr(self._pipeline, name, None) for name in ("text_encoder", "text_encoder_2")}
        return {name: part for name, part in parts.items() if part is not None}

    def _text_encoders_by_prefix(self) -> dict[str, nn.Module]:
        """Return the text encoders by the prefix of their keys in a LoRA file."""
        encoders = list(self._text_encoders().values())
        prefixes = ["lora_te"] if len(encoders) == 1 else ["lora_te1", "lora_te2"]
        return dict(zip(prefixes, encoders, strict=True))

    def losses(
        self, rows: Sequence[CachedExample], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        self._check_interrupt()
        inputs: list[Inputs] = [row.inputs for row in rows]
        drawn = [one.draw(seed) for one, seed in zip(inputs, seeds, strict=True)]
        if self._trains_text:
            drawn = [
                (latent, self._encode_trained(text, seed)) for (latent, text), seed in zip(drawn, seeds, strict=True)
            ]
        latents, mask = stacked([latent for latent, _ in drawn], self.device)
        context = torch.stack([embedding for _, (embedding, _) in drawn]).to(self.device, self._compute)
        added = self._added([pooled for _, (_, pooled) in drawn], latents)

        def predict(noisy: Tensor, sigma: Tensor, drawn: Tensor) -> Tensor:
            scaled = noisy / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1)
            autocast = torch.autocast(self.device.type, self._compute, enabled=self._compute is not torch.float32)
            with autocast, self._rows.used(seeds):
                return self._unet(
                    scaled.to(self._compute),
                    drawn,
                    encoder_hidden_states=context,
                    added_cond_kwargs=added,
                ).sample

        weights = [one.weight for one in inputs]
        return diffusion_losses(
            self.objective,
            latents,
            seeds,
            lambda t: self._sigmas[t.long()],
            predict,
            mask,
            weights,
            timesteps,
            self.objective_settings,
        )

    def _added(self, pooled: list[Tensor | None], latents: Tensor) -> dict[str, Tensor]:
        """Return SDXL's additional conditioning: pooled text embeddings and image sizes; empty for SD1.5."""
        if pooled[0] is None:
            return {}
        factor = self._pipeline.vae_scale_factor
        height, width = (side * factor for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width]).expand(len(pooled), -1)
        return {
            "text_embeds": torch.stack([one for one in pooled if one is not None]).to(self.device, self._compute),
            "time_ids": sizes.to(self.device, self._compute),
        }

    @torch.no_grad()
    def sample(self, sampling: Sampling) -> Tensor:
        self._pipeline.vae.to(self.device)
        training_scheduler, self._pipeline.scheduler = self._pipeline.scheduler, self._sample_scheduler(sampling)
        self._unet.eval()
        if self._trains_text:
            self._encode_prompts([sampling])
        try:
            return torch.cat([self._picture(prompt, sampling) for prompt in sampling.prompts])
        finally:
            self._unet.train()
            self._pipeline.scheduler = training_scheduler
            self.release_encoders()

    def _sample_scheduler(self, sampling: Sampling) -> Any:
        config = dict(self._pipeline.scheduler.config)
        if sampling.sampler != "ddim":
            config["use_karras_sigmas"] = sampling.scheduler == "karras"
        return _SAMPLERS[sampling.sampler].from_config(config)

    def _picture(self, prompt: str, sampling: Sampling) -> Tensor:
        self._check_interrupt()
        positive, negative = self._prompts[prompt], self._prompts[sampling.negative]

        def row(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.unsqueeze(0).to(self.device)

        arguments: dict[str, Any] = {
            "prompt_embeds": row(positive[0]),
            "negative_prompt_embeds": row(negative[0]),
        }
        if positive[1] is not None:
            arguments["pooled_prompt_embeds"] = row(positive[1])
            arguments["negative_pooled_prompt_embeds"] = row(negative[1])
        with torch.autocast(self.device.type, self._compute, enabled=self._compute is not torch.float32):
            picture = self._pipeline(
                **arguments,
                width=sampling.width,
                height=sampling.height,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.cfg,
                generator=torch.Generator().manual_seed(sampling.seed),
                output_type="pt",
            ).images
        return picture.permute(0, 2, 3, 1).to("cpu", torch.float32)

    def verify(self, path: Path, layers: int) -> None:
        unmatched = unmatched_keys(path, self._unet, self._text_encoders())
        saved = len({key.partition(".")[0] for key in read_lora(path)[0]})
        if unmatched or saved != layers:
            raise CrucibleError(
                f"The LoRA {path} was saved with {saved} of its {layers} layers, and {len(unmatched)} of its keys are "
                f"missing or ignored by diffusers' loader{': ' + ', '.join(unmatched[:3]) if unmatched else ''}. Used "
                "as it is, it would have less effect than it was trained to have. Please report this with the name of "
                "the base model."
            )
