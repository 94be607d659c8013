"""A base model made from a diffusers pipeline, for training without ComfyUI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from ...adapters.adapters import Adapters
from ...adapters.dropout import RowSeeds
from ...adapters.peft_layers import adapted
from ...adapters.spec import AdapterSpec
from ...adapters.targets import is_adaptable
from ...data.cache import TensorCache
from ...data.images.examples import ImageExample
from ...distributed.processes import current
from ...errors import CrucibleError
from ...files.hub import DownloadProgress
from ...formats.architectures import ARCHITECTURES
from ...formats.layer_names import text_encoder_key
from ...formats.lora_file import read_lora
from ...formats.names import Place, place_of
from ...formats.universal import split_keys
from ...optim.engine import DTYPES, Engine
from ..diffusion.inputs import Caption, Inputs, Latent, cached_examples, stacked
from ..diffusion.model import DiffusionBaseModel, diffusion_losses
from ..diffusion.objective import PredictionType
from ..examples import CachedExample, Progress, RowLosses
from ..identity import weights_hash
from ..split_refusals import refuse_split_dora
from .families.base import Encoded
from .layers import denoiser_layers
from .memory import DenoiserMemory
from .pipeline import Pipeline, PipelineEncoders
from .previews import DiffusersPreviewer
from .resolve import open_source

log = logging.getLogger(__name__)

LEAST_SIGNAL = 2**-24
"""The least share of the image's variance that is left at a timestep. Schedules with a zero signal-to-noise ratio at
their end (Lin et al. 2023, arXiv:2305.08891) have none there, and noise levels would be infinite; diffusers' samplers
use the same number."""


class DiffusersBaseModel(DiffusionBaseModel):
    """A text-to-image or text-to-video model in diffusers' format, or the demo model.

    Args:
        base_model: a folder with a model_index.json, owner/name on the Hugging Face hub, or "demo".
        check_interrupt: a function called before each batch and each sample; it may raise to stop the training.
        weights: whether to load the weights. Without them, the model can only tell what it could be trained with.
        split: whether to split the denoiser over the processes of the run.
        download: whether the model may be downloaded.
        progress: a callback that follows the download.
        announce: a callback that gets a message before a download begins: what, from where and how large.

    Raises:
        CrucibleError: there is no such model, or it is of a kind that cannot be trained here.
    """

    def __init__(
        self,
        base_model: str,
        check_interrupt: Callable[[], None] = lambda: None,
        *,
        weights: bool = True,
        split: bool = False,
        download: bool = False,
        progress: DownloadProgress = lambda done, total, file: None,
        announce: Callable[[str], None] = log.info,
    ) -> None:
        self._check_interrupt, self._split = check_interrupt, split
        self._source = open_source(base_model, download=download, progress=progress, announce=announce)
        facts = self._source.facts
        self.name = self._source.name
        self.architecture = ARCHITECTURES[facts.architecture]
        self.native_resolution = self._source.native_resolution
        self.prediction_type = PredictionType(facts.prediction_type)
        self._pipeline = Pipeline(self._source, weights=weights, split=split)
        self.device = self._pipeline.device
        self._denoiser = self._pipeline.denoiser
        self._layers = denoiser_layers(self._denoiser, self.architecture)
        self._rows = RowSeeds()
        self.memory = DenoiserMemory(self._denoiser, self._rows)
        self.previewer = self._previewer = DiffusersPreviewer(self._pipeline, check_interrupt)

    def warnings(self) -> tuple[str, ...]:
        return self._source.warnings

    def own_shift(self, pixels: float) -> float:
        return self._source.family.shift(self._source.scheduler, pixels, self.native_resolution**2)

    def identity(self) -> str:
        return "" if self.device.type == "meta" else self._identity

    @cached_property
    def _identity(self) -> str:
        """The hash of the weights as they are in their files: a session may change their dtype."""
        if not self._split:
            return weights_hash(self._denoiser.state_dict().items())
        is_here = current().is_main  # which has all weights until they are split
        found: str = current().from_main(weights_hash(self._denoiser.state_dict().items()) if is_here else "")
        return found

    def encoders_identity(self) -> str:
        return self._as_encoders().identity

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        _ = self.identity()
        if mixed_precision == "auto":
            mixed_precision = "fp32"
            if self.device.type == "cuda":
                mixed_precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        self._engine = self._previewer.engine = Engine(self.device, DTYPES[mixed_precision])
        self._pipeline.load_encoders()
        self._pipeline.prepare_denoiser(self._engine.compute)
        if self.prediction_type is not PredictionType.FLOW:
            signal = self._pipeline.whole.scheduler.alphas_cumprod.double().clamp(LEAST_SIGNAL)
            self._sigmas = ((1 - signal) / signal).sqrt().float().to(self.device)
        with torch.enable_grad():
            yield self._engine

    @torch.no_grad()
    def cache_inputs(
        self,
        examples: Sequence[ImageExample],
        cache: TensorCache,
        caption_dropout: float,
        encode_captions: bool,
        progress: Progress,
    ) -> list[CachedExample[Inputs]]:
        return cached_examples(examples, self._as_encoders(), cache, caption_dropout, encode_captions, progress)

    def _as_encoders(self) -> PipelineEncoders:
        return PipelineEncoders(self._pipeline)

    def release_encoders(self) -> None:
        self._pipeline.release_encoders()

    @contextmanager
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        if self._split:
            refuse_split_dora(spec)
        with ExitStack() as stack:
            layers = stack.enter_context(self._layers.attached(spec, self._rows))
            if spec.text_encoder:
                encoders = self._trainable_text_encoders()
                self._pipeline.trains_text = True
                stack.callback(setattr, self._pipeline, "trains_text", False)
                for prefix, encoder in encoders.items():
                    encoder.to(self.device)
                    key_of = partial(text_encoder_key, prefix)
                    layers |= stack.enter_context(adapted(encoder, spec.of_text_encoder, key_of, self._rows))
            stack.callback(self.memory.set_checkpointing, False)
            self.memory.set_checkpointing(gradient_checkpointing)
            self._denoiser.train()
            stack.callback(self._denoiser.eval)
            yield Adapters(layers)

    def _trainable_text_encoders(self) -> Mapping[str, torch.nn.Module]:
        found = self._pipeline.trainable_text_encoders()
        if not found:
            raise CrucibleError(
                f"train_text_encoder is on, but {self.name} is a {self.architecture.name} model, whose text encoders "
                "the command line does not train through diffusers: a language model, which a LoRA does not need to "
                "change, reads the captions. Turn train_text_encoder off."
            )
        return found

    def place_of(self, name: str) -> Place | None:
        return place_of(name, self.architecture)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return self._layers.shapes | {
            text_encoder_key(prefix, path): tuple(module.weight.shape)
            for prefix, encoder in self._pipeline.trainable_text_encoders().items()
            for path, module in encoder.named_modules()
            if is_adaptable(module)
        }

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._layers.portable(state_dict)

    def losses(
        self, rows: Sequence[CachedExample[Inputs]], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        self._check_interrupt()
        inputs = [row.inputs for row in rows]
        drawn = [one.draw(seed) for one, seed in zip(inputs, seeds, strict=True)]
        encoded = [self._encoded(caption, seed) for (_, caption), seed in zip(drawn, seeds, strict=True)]
        # Captions of different lengths cannot be stacked into one tensor.
        alike: dict[torch.Size, list[int]] = {}
        for index, (embedding, _) in enumerate(encoded):
            alike.setdefault(embedding.shape, []).append(index)

        def losses_of(indices: list[int]) -> RowLosses:
            return self._losses(
                [drawn[index][0] for index in indices],
                [encoded[index] for index in indices],
                [seeds[index] for index in indices],
                [inputs[index].weight for index in indices],
                None if timesteps is None else [timesteps[index] for index in indices],
            )

        more = current().passes.largest(len(alike)) - len(alike)
        parts = [losses_of(indices) for indices in alike.values()]
        for _ in range(more):  # other processes need this one for their passes
            without_effect = 0 * losses_of([0]).values.sum()
            parts[0] = replace(parts[0], values=parts[0].values + without_effect)
        if len(parts) == 1:
            return parts[0]
        places = [index for indices in alike.values() for index in indices]
        return RowLosses.joined(parts, [places.index(row) for row in range(len(rows))])

    def _losses(
        self,
        latents: list[Latent],
        encoded: list[Encoded],
        seeds: list[int],
        weights: list[float],
        timesteps: list[float] | None,
    ) -> RowLosses:
        values, mask = stacked(latents, self.device)
        captions = [self._for_computing(one) for one in encoded]
        pipeline = self._pipeline

        def predict(noisy: Tensor, sigma: Tensor, drawn: Tensor) -> Tensor:
            with self._engine.autocast(), self._rows.used(seeds):
                return pipeline.family.predict(pipeline.whole, noisy, sigma, drawn, captions)

        def sigma_of(timestep: Tensor) -> Tensor:
            return timestep if self.prediction_type is PredictionType.FLOW else self._sigmas[timestep.long()]

        height, width = values.shape[-2:]
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
            self.shift(height * width * pipeline.pixels_per_latent**2),
        )

    def _for_computing(self, encoded: Encoded) -> Encoded:
        embedding, pooled = encoded
        where = (self.device, self._engine.compute)
        return embedding.to(*where), None if pooled is None else pooled.to(*where)

    def _encoded(self, caption: Caption, seed: int) -> Encoded:
        """Return a row's caption as embeddings, with gradients if the text encoders are trained."""
        if not self._pipeline.trains_text:
            embedding: Encoded = caption.encoded()
            return embedding
        with self._rows.used([seed]):
            return self._pipeline.encode_on_device(caption.text)

    def verify(self, path: Path, layers: int) -> None:
        unmatched = self._layers.unmatched(path, self._pipeline.text_encoders())
        names, _ = split_keys(read_lora(path)[0])
        saved = len({place.key if (place := self.place_of(name)) else name for name in names})
        if unmatched or saved != layers:
            raise CrucibleError(
                f"The LoRA {path} was saved with {saved} of its {layers} layers, and {len(unmatched)} of its keys are "
                f"missing or ignored by diffusers' loader{': ' + ', '.join(unmatched[:3]) if unmatched else ''}. Used "
                "as it is, it would have less effect than it was trained to have. Please report this with the name of "
                "the base model."
            )
