"""A base model made from the MODEL, CLIP and VAE of a ComfyUI graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from torch import Tensor

from ...adapters.adapters import Adapters
from ...adapters.dropout import RowSeeds
from ...adapters.spec import AdapterSpec
from ...config import ModelFacts
from ...data.cache import TensorCache
from ...data.images.examples import ImageExample
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES
from ...formats.names import Place
from ...formats.portable import to_portable
from ...optim.engine import DTYPES, Engine
from ..diffusion.inputs import Caption, Inputs, Latent, cached_examples, stacked
from ..diffusion.model import DiffusionBaseModel, diffusion_losses
from ..diffusion.objective import PredictionType, prediction_from_denoised
from ..examples import CachedExample, Progress, RowLosses
from . import attaching, conditioning, memory, naming, suitability, support
from .encoding import ComfyUIEncoders, patched_weights_hash
from .loading import LoadedModel
from .previews import ComfyUIPreviewer
from .shifting import own_shift
from .text_training import LiveTextEncoder


class ComfyUIBaseModel(DiffusionBaseModel):
    """A model loaded in ComfyUI, of any architecture that ComfyUI's sampler can run.

    Args:
        model, clip, vae: the outputs of a checkpoint loader node.
        check_interrupt: a function called before each batch and each sample; it may raise to stop.

    Raises:
        CrucibleError: the CLIP or VAE is missing, or the model cannot be trained on images and captions.
    """

    def __init__(
        self, model: Any, clip: Any, vae: Any, check_interrupt: Callable[[], None] = memory.check_interrupt
    ) -> None:
        _require(clip, "CLIP", "the captions cannot be encoded")
        # For a checkpoint without a VAE, ComfyUI's loader returns an empty one.
        _require(getattr(vae, "first_stage_model", None), "VAE", "the images cannot be encoded")
        self._model = model
        self._clip = clip
        self._vae = vae
        self._check_interrupt = check_interrupt
        facts = model_facts(model)
        self.architecture = ARCHITECTURES[facts.architecture]
        self.native_resolution = self.architecture.native_resolution
        self.name = type(model.model.model_config).__name__
        self.prediction_type = PredictionType(facts.prediction_type)
        self.memory = self._loaded = LoadedModel(model)
        self.previewer = self._previewer = ComfyUIPreviewer(self._loaded, clip, vae, check_interrupt)
        self._live_text: LiveTextEncoder | None = None
        self._compute = model.model.get_dtype_inference()
        self._rows = RowSeeds()

    def warnings(self) -> tuple[str, ...]:
        return suitability.warnings_of(self._model)

    def own_shift(self, pixels: float) -> float:
        return own_shift(self._model.get_model_object("model_sampling"), pixels, self.native_resolution**2)

    def identity(self) -> str:
        return patched_weights_hash(self._model)

    def encoders_identity(self) -> str:
        return ComfyUIEncoders(self._model.model, self._clip, self._vae).identity

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        patcher = self._model.clone()
        compute = self._compute_dtype(mixed_precision)
        if compute != patcher.model.get_dtype_inference():
            patcher.set_model_compute_dtype(compute)
        self._compute = compute
        self._loaded.start(patcher)
        with memory.gradients_allowed():
            try:
                yield Engine(patcher.load_device, compute)
            finally:
                patcher.cleanup()
                # Undo what loading changed on the module that all clones share.
                comfy.model_management.unload_model_and_clones(patcher)
                self._loaded.end()

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
        examples: Sequence[ImageExample],
        cache: TensorCache,
        caption_dropout: float,
        encode_captions: bool,
        progress: Progress,
    ) -> list[CachedExample[Inputs]]:
        def checked(done: int, total: int, what: str) -> None:
            self._check_interrupt()
            progress(done, total, what)

        encoders = ComfyUIEncoders(self._loaded.patcher.model, self._clip, self._vae)
        is_oom = self.memory.is_out_of_memory
        return cached_examples(examples, encoders, cache, caption_dropout, encode_captions, checked, is_oom)

    def release_encoders(self) -> None:
        memory.unload_all()

    @contextmanager
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        patcher = self._loaded.patcher
        self._loaded.set_checkpointing(gradient_checkpointing)
        with ExitStack() as stack:
            layers = stack.enter_context(
                attaching.attached(
                    patcher.model.diffusion_model,
                    spec,
                    naming.file_keys(patcher.model, self.architecture),
                    patcher.load_device,
                    self._compute,
                    self._loaded.checkpointing,
                    self._rows,
                )
            )
            if spec.text_encoder:
                live_text = LiveTextEncoder(self._clip)
                stack.callback(self._train_text, None)
                self._train_text(live_text)
                layers |= stack.enter_context(live_text.attached(spec.of_text_encoder, self._rows))
            yield Adapters(layers)

    def _train_text(self, live_text: LiveTextEncoder | None) -> None:
        self._live_text = live_text
        self._previewer.encode_anew = live_text is not None
        self._loaded.text_encoders = () if live_text is None else (live_text.patcher,)

    def place_of(self, name: str) -> Place | None:
        return self._places(name)

    @cached_property
    def _places(self) -> Callable[[str], Place | None]:
        return naming.place_of(self._model.model, self.architecture, self._clip.cond_stage_model)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return naming.layer_shapes(self._model.model, self.architecture, self._clip.cond_stage_model)

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.architecture.is_kohya:
            return dict(state_dict)
        return to_portable(state_dict, naming.parts_in_file(self._model.model, self.architecture))

    def losses(
        self, rows: Sequence[CachedExample[Inputs]], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        self._check_interrupt()
        inputs = [row.inputs for row in rows]
        drawn = [one.draw(seed) for one, seed in zip(inputs, seeds, strict=True)]
        options = self._loaded.options((len(rows), *drawn[0][0].values.shape))
        model = self._loaded.patcher.model
        conditionings = [
            conditioning.model_conditioning(model, self._encoded(caption, seed), latent.values)
            for (latent, caption), seed in zip(drawn, seeds, strict=True)
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
                options,
            )
            for indices in alike.values()
        ]
        places = [index for indices in alike.values() for index in indices]
        return RowLosses.joined(parts, [places.index(row) for row in range(len(rows))])

    def _encoded(self, caption: Caption, seed: int) -> list[Any]:
        """Return ComfyUI's conditioning list for a row's caption."""
        if self._live_text is None:
            return caption.encoded()
        with self._rows.used([seed]):
            return self._live_text.encode(caption.text)

    def _losses(
        self,
        latents: list[Latent],
        conditionings: list[conditioning.Conditioning],
        seeds: list[int],
        weights: list[float],
        timesteps: list[float] | None,
        options: dict[str, Any],
    ) -> RowLosses:
        patcher = self._loaded.patcher
        device = patcher.load_device
        sampling = patcher.get_model_object("model_sampling")
        arguments = conditioning.batched(conditionings, device)

        def predict(noisy: Tensor, sigma: Tensor, _: Tensor) -> Tensor:
            given, level = noisy, sigma
            if isinstance(sampling, comfy.model_sampling.COSMOS_RFLOW):
                # ComfyUI samples this flow model with latent + sigma * noise.
                level = sigma / (1 - sigma)
                given = noisy * (1 + level).reshape(-1, *[1] * (noisy.ndim - 1))
            row_options = {**options, "cond_or_uncond": [0] * len(latents), "sigmas": level}
            with self._rows.used(seeds):
                denoised = patcher.model.apply_model(given, level, transformer_options=row_options, **arguments)
            return prediction_from_denoised(self.prediction_type, noisy, denoised, sigma)

        def sigma_of(timestep: Tensor) -> Tensor:
            return timestep if self.prediction_type is PredictionType.FLOW else sampling.sigma(timestep)

        values, mask = stacked(latents, device)
        height, width = (side * patcher.model.latent_format.spacial_downscale_ratio for side in values.shape[-2:])
        return diffusion_losses(
            self.prediction_type,
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
