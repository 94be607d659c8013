"""A base model made from the MODEL, CLIP and VAE of a ComfyUI graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sampler_helpers
import torch
from torch import Tensor

from ...adapters.adapters import Adapters, AdapterSpec
from ...adapters.dropout import RowSeeds
from ...config import ModelFacts
from ...data.cache import TensorCache
from ...data.images.samples import Sample
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES
from ...formats.names import Place
from ...formats.portable import to_portable
from ..base import DTYPES, CachedExample, Precision, Progress, RowLosses, Sampling
from ..diffusion.inputs import Inputs, Latent, cached_samples, stacked
from ..diffusion.model import DiffusionBaseModel, diffusion_losses
from ..diffusion.objective import PredictionType, prediction_from_denoised
from . import attaching, conditioning, memory, naming, suitability, support
from .encoding import ComfyUIEncoders, patched_weights_hash
from .sampling import sample_picture
from .shifting import own_shift
from .text_training import LiveTextEncoder

OFFLOADING_STEPS = 4
"""The number of steps in which a model is offloaded to the host's memory, one equal part at a time."""


class ComfyUIBaseModel(DiffusionBaseModel):
    """A model loaded in ComfyUI, of any architecture that ComfyUI's sampler can run.

    Args:
        model, clip, vae: the outputs of a checkpoint loader node.

    Raises:
        CrucibleError: the CLIP or VAE is missing, or the model cannot be trained on images and captions.
    """

    def __init__(self, model: Any, clip: Any, vae: Any) -> None:
        _require(clip, "CLIP", "the captions cannot be encoded")
        # For a checkpoint without a VAE, ComfyUI's loader returns an empty one.
        _require(getattr(vae, "first_stage_model", None), "VAE", "the images cannot be encoded")
        self._model = model
        self._clip = clip
        self._vae = vae
        facts = model_facts(model)
        self.architecture = ARCHITECTURES[facts.architecture]
        self.native_resolution = facts.native_resolution
        self.name = type(model.model.model_config).__name__
        self.objective = PredictionType(facts.prediction_type)
        self.prediction_type = facts.prediction_type
        self._patcher = model
        self._live_text: LiveTextEncoder | None = None
        self._rows = RowSeeds()
        self._ready = False
        self._room: int | None = None
        self._limit: int | None = None
        self._offloaded = 0

    def warnings(self) -> tuple[str, ...]:
        return suitability.warnings_of(self._model)

    def own_shift(self, pixels: float) -> float:
        return own_shift(self._model.get_model_object("model_sampling"), pixels, self.native_resolution**2)

    def identity(self) -> str:
        return patched_weights_hash(self._model)

    def encoders_identity(self) -> str:
        return ComfyUIEncoders(self._model.model, self._clip, self._vae).identity

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Precision]:
        patcher = self._model.clone()
        compute = self._compute_dtype(mixed_precision)
        if compute != patcher.model.get_dtype_inference():
            patcher.set_model_compute_dtype(compute)
        self._patcher, self._compute = patcher, compute
        with memory.gradients_allowed():
            try:
                yield Precision(compute)
            finally:
                patcher.cleanup()
                # Undo what loading changed on the module that all clones share.
                comfy.model_management.unload_model_and_clones(patcher)
                self._patcher, self._ready = self._model, False
                self._room, self._limit, self._offloaded = None, None, 0

    def _compute_dtype(self, mixed_precision: str) -> torch.dtype:
        if mixed_precision in DTYPES:
            return DTYPES[mixed_precision]
        dtype = self._model.model.get_dtype_inference()
        # float16 gradients underflow, so bfloat16 is preferred if the device supports it.
        if dtype == torch.float16 and comfy.model_management.should_use_bf16(self._model.load_device):
            return torch.bfloat16
        return dtype

    def cache_inputs(
        self,
        samples: Sequence[Sample],
        cache: TensorCache,
        caption_dropout: float,
        progress: Progress,
        live_captions: bool = False,
    ) -> list[CachedExample]:
        def checked(done: int, total: int, what: str) -> None:
            memory.check_interrupt()
            progress(done, total, what)

        encoders = ComfyUIEncoders(self._patcher.model, self._clip, self._vae)
        return cached_samples(samples, encoders, cache, caption_dropout, checked, live_captions)

    def prepare_sampling(self, samplings: Sequence[Sampling]) -> None:
        prompts = dict.fromkeys(prompt for one in samplings for prompt in (one.negative, *one.prompts))
        with memory.as_in_a_node():
            self._prompts = {prompt: conditioning.encode_prompt(self._clip, prompt) for prompt in prompts}

    def release_encoders(self) -> None:
        memory.unload_all()

    @contextmanager
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        model = self._patcher.model
        self._checkpointing = attaching.Checkpointing(gradient_checkpointing)
        with ExitStack() as stack:
            layers = stack.enter_context(
                attaching.attached(
                    model.diffusion_model,
                    spec,
                    naming.file_keys(model, self.architecture),
                    self._patcher.load_device,
                    self._compute,
                    self._checkpointing,
                    self._rows,
                )
            )
            if spec.text_encoder:
                self._live_text = LiveTextEncoder(self._clip)
                stack.callback(setattr, self, "_live_text", None)
                layers |= stack.enter_context(self._live_text.attached(spec.of_text_encoder, self._rows))
            yield Adapters(layers)

    def place_of(self, name: str) -> Place | None:
        return self._places(name)

    @cached_property
    def _places(self) -> Callable[[str], Place | None]:
        return naming.place_of(self._model.model, self.architecture, self._clip.cond_stage_model)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return naming.layer_shapes(self._model.model, self.architecture, self._clip.cond_stage_model)

    def set_checkpointing(self, on: bool) -> None:
        self._checkpointing.on = on

    def weights_size(self) -> tuple[int, int]:
        return self._patcher.model_size(), self._patcher.loaded_size()

    def is_out_of_memory(self, error: BaseException) -> bool:
        return super().is_out_of_memory(error) or memory.is_out_of_memory(error)

    def available_memory(self, device: torch.device) -> int:
        # Dynamic memory keeps the weights outside torch's allocator and releases them when torch needs the room.
        weights = self._patcher.loaded_size() if self._patcher.is_dynamic() else 0
        return super().available_memory(device) + weights

    def free_memory(self) -> None:
        # Reloading the models removes fragmentation.
        self._ready = False
        memory.unload_all()
        super().free_memory()

    def make_room(self, room: int | None, limit: int | None) -> None:
        self._room, self._limit, self._ready = room, limit, False

    def offload_more(self) -> bool:
        size = self._patcher.model_size()
        if not memory.can_be_offloaded(self._patcher) or self._offloaded >= size:
            return False
        self._offloaded += -(-size // OFFLOADING_STEPS)
        self._ready = False
        return True

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.architecture.is_kohya:
            return dict(state_dict)
        return to_portable(state_dict, naming.parts_in_file(self._model.model, self.architecture))

    def losses(
        self, rows: Sequence[CachedExample], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        memory.check_interrupt()
        inputs: list[Inputs] = [row.inputs for row in rows]
        drawn = [one.draw(seed) for one, seed in zip(inputs, seeds, strict=True)]
        if not self._ready:
            self._prepare_training((len(rows), *drawn[0][0].values.shape))
        model = self._patcher.model
        texts = [text for _, text in drawn]
        if self._live_text is not None:
            texts = [self._encode_live(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        conditionings = [
            conditioning.model_conditioning(model, text, latent.values)
            for (latent, _), text in zip(drawn, texts, strict=True)
        ]
        # Captions of different lengths cannot be stacked into one tensor.
        alike: dict[Any, list[int]] = {}
        for index, one in enumerate(conditionings):
            alike.setdefault(conditioning.shapes(one), []).append(index)
        parts = [
            self._losses(
                [drawn[index][0] for index in indices],
                [conditionings[index] for index in indices],
                [seeds[index] for index in indices],
                [inputs[index].weight for index in indices],
                None if timesteps is None else [timesteps[index] for index in indices],
            )
            for indices in alike.values()
        ]
        places = [index for indices in alike.values() for index in indices]
        return RowLosses.joined(parts, [places.index(row) for row in range(len(rows))])

    def _encode_live(self, caption: str, seed: int) -> list[Any]:
        assert self._live_text is not None
        with self._rows.used([seed]):
            return self._live_text.encode(caption)

    def _losses(
        self,
        latents: list[Latent],
        conditionings: list[conditioning.Conditioning],
        seeds: list[int],
        weights: list[float],
        timesteps: list[float] | None,
    ) -> RowLosses:
        patcher = self._patcher
        device = patcher.load_device
        sampling = patcher.get_model_object("model_sampling")
        arguments = conditioning.batched(conditionings, device)

        def predict(noisy: Tensor, sigma: Tensor, _: Tensor) -> Tensor:
            given, level = noisy, sigma
            if isinstance(sampling, comfy.model_sampling.COSMOS_RFLOW):
                # ComfyUI samples this flow model with latent + sigma * noise.
                level = sigma / (1 - sigma)
                given = noisy * (1 + level).reshape(-1, *[1] * (noisy.ndim - 1))
            options = {**self._options, "cond_or_uncond": [0] * len(latents), "sigmas": level}
            with self._rows.used(seeds):
                denoised = patcher.model.apply_model(given, level, transformer_options=options, **arguments)
            return prediction_from_denoised(self.objective, noisy, denoised, sigma)

        def sigma_of(timestep: Tensor) -> Tensor:
            return timestep if self.objective is PredictionType.FLOW else sampling.sigma(timestep)

        values, mask = stacked(latents, device)
        height, width = (side * patcher.model.latent_format.spacial_downscale_ratio for side in values.shape[-2:])
        return diffusion_losses(
            self.objective,
            values,
            seeds,
            sigma_of,
            predict,
            mask,
            weights,
            timesteps,
            self.objective_settings,
            self.shift(height * width),
        )

    def _prepare_training(self, latent_shape: tuple[int, ...]) -> None:
        """Load the model for training. ComfyUI may have unloaded it for the VAE while encoding or sampling."""
        text_encoders = [] if self._live_text is None else [self._live_text.patcher]
        room = memory.guessed_room(self._patcher, latent_shape) if self._room is None else self._room
        memory.load(self._patcher, room + self._offloaded, self._limit, *text_encoders)
        options = comfy.model_patcher.create_model_options_clone(self._patcher.model_options)
        comfy.sampler_helpers.prepare_model_patcher(self._patcher, {}, options)
        self._options = memory.differentiable_attention(options["transformer_options"])
        self._patcher.pre_run()
        self._ready = True

    def sample(self, sampling: Sampling) -> Tensor:
        self._ready = False
        if self._live_text is not None:
            self.prepare_sampling([sampling])
        with memory.as_in_a_node():
            pictures = [
                sample_picture(
                    self._patcher, self._vae, self._prompts[prompt], self._prompts[sampling.negative], sampling
                )
                for prompt in sampling.prompts
            ]
            return torch.cat(pictures)

    def verify(self, path: Path, layers: int) -> None:
        naming.verify(self._model.model, self._clip, path, layers)


def _require(part: Any, name: str, consequence: str) -> None:
    if part is None:
        raise CrucibleError(
            f"The {name} connected to Train LoRA is empty: the checkpoint it comes from contains none, so "
            f"{consequence}. Load a {name} with a separate loader node and connect that instead."
        )


def model_facts(model: Any) -> ModelFacts:
    """Return the facts about a MODEL that training settings are chosen from.

    Raises:
        CrucibleError: the model cannot be trained.
    """
    support.require_trainable(model.model)
    suitability.require_ordinary_sampling(model)
    architecture = naming.architecture_of(model.model)
    objective = support.objective_of(model.get_model_object("model_sampling"))
    return ModelFacts(architecture.id, architecture.native_resolution, architecture.cfg, objective.value)
