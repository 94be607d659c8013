"""A base model made from a diffusers pipeline, for training without ComfyUI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES
from ...formats.layer_names import file_key, text_encoder_key
from ...formats.lora_file import read_lora
from ...formats.names import Place, place_of
from ...optim.engine import DTYPES, Engine
from ..diffusion.inputs import Caption, Inputs, cached_examples, stacked
from ..diffusion.model import DiffusionBaseModel, diffusion_losses
from ..diffusion.objective import PredictionType
from ..examples import CachedExample, Progress, RowLosses
from ..identity import weights_hash
from .folder import read_folder
from .memory import UNetMemory
from .pipeline import Encoded, Pipeline, PipelineEncoders
from .previews import DiffusersPreviewer
from .verify import unmatched_keys

LEAST_SIGNAL = 2**-24
"""The least share of the image's variance that is left at a timestep. Schedules with a zero signal-to-noise ratio at
their end (Lin et al. 2023, arXiv:2305.08891) have none there, and noise levels would be infinite; diffusers' samplers
use the same number."""


class DiffusersBaseModel(DiffusionBaseModel):
    """SD1.5 or SDXL from a diffusers folder, or the demo model.

    Args:
        base_model: a folder with a model_index.json, or "demo".
        check_interrupt: a function called before each batch and each sample; it may raise to stop the training.
        weights: whether to load the weights. Without them, the model can only tell what it could be trained with.

    Raises:
        CrucibleError: there is no such folder, or it contains another kind of model.
    """

    def __init__(
        self, base_model: str, check_interrupt: Callable[[], None] = lambda: None, *, weights: bool = True
    ) -> None:
        self._check_interrupt = check_interrupt
        folder = read_folder(base_model)
        self._warnings = folder.warnings
        self.name = folder.name
        self.architecture = ARCHITECTURES[folder.facts.architecture]
        self.native_resolution = folder.native_resolution
        self.prediction_type = PredictionType(folder.facts.prediction_type)
        self._pipeline = Pipeline(folder.path, weights=weights)
        self.device = self._pipeline.device
        self._unet = self._pipeline.unet
        self._rows = RowSeeds()
        self.memory = UNetMemory(self._unet, self._rows)
        self.previewer = self._previewer = DiffusersPreviewer(self._pipeline, check_interrupt)

    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    def own_shift(self, pixels: float) -> float:
        return 1.0  # none of these models is a flow model

    def identity(self) -> str:
        if self.device.type == "meta":
            return ""
        return weights_hash(self._unet.state_dict().items())

    def encoders_identity(self) -> str:
        return self._as_encoders().identity

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        if mixed_precision == "auto":
            mixed_precision = "fp32"
            if self.device.type == "cuda":
                mixed_precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        self._engine = self._previewer.engine = Engine(self.device, DTYPES[mixed_precision])
        self._pipeline.load_encoders()
        self._unet.to(self.device, self._engine.compute).requires_grad_(False)
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
        unet = self._unet
        with ExitStack() as stack:
            layers = stack.enter_context(adapted(unet, spec, self._key_of, self._rows))
            if spec.text_encoder:
                self._pipeline.trains_text = True
                stack.callback(setattr, self._pipeline, "trains_text", False)
                for prefix, encoder in self._pipeline.text_encoders_by_prefix().items():
                    encoder.to(self.device)
                    key_of = partial(text_encoder_key, prefix)
                    layers |= stack.enter_context(adapted(encoder, spec.of_text_encoder, key_of, self._rows))
            stack.callback(self.memory.set_checkpointing, False)
            self.memory.set_checkpointing(gradient_checkpointing)
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
            (encoder, partial(text_encoder_key, prefix))
            for prefix, encoder in self._pipeline.text_encoders_by_prefix().items()
        ]
        return {
            key_of(path): tuple(module.weight.shape)
            for model, key_of in models
            for path, module in model.named_modules()
            if is_adaptable(module)
        }

    def losses(
        self, rows: Sequence[CachedExample[Inputs]], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        self._check_interrupt()
        inputs = [row.inputs for row in rows]
        drawn = [one.draw(seed) for one, seed in zip(inputs, seeds, strict=True)]
        encoded = [self._encoded(caption, seed) for (_, caption), seed in zip(drawn, seeds, strict=True)]
        latents, mask = stacked([latent for latent, _ in drawn], self.device)
        compute = self._engine.compute
        context = torch.stack([embedding for embedding, _ in encoded]).to(self.device, compute)
        added = self._pipeline.added_conditions([pooled for _, pooled in encoded], latents, compute)

        def predict(noisy: Tensor, sigma: Tensor, drawn: Tensor) -> Tensor:
            scaled = noisy / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1)
            with self._engine.autocast(), self._rows.used(seeds):
                return self._unet(
                    scaled.to(compute),
                    drawn,
                    encoder_hidden_states=context,
                    added_cond_kwargs=added,
                ).sample

        weights = [one.weight for one in inputs]
        return diffusion_losses(
            self.prediction_type,
            latents,
            seeds,
            lambda t: self._sigmas[t.long()],
            predict,
            mask,
            weights,
            timesteps,
            self.objective_settings,
        )

    def _encoded(self, caption: Caption, seed: int) -> Encoded:
        """Return a row's caption as embeddings, with gradients if the text encoders are trained."""
        if not self._pipeline.trains_text:
            embedding: Encoded = caption.encoded()
            return embedding
        with self._rows.used([seed]):
            return self._pipeline.encode_on_device(caption.text)

    def verify(self, path: Path, layers: int) -> None:
        unmatched = unmatched_keys(path, self._unet, self._pipeline.text_encoders())
        saved = len({key.partition(".")[0] for key in read_lora(path)[0]})
        if unmatched or saved != layers:
            raise CrucibleError(
                f"The LoRA {path} was saved with {saved} of its {layers} layers, and {len(unmatched)} of its keys are "
                f"missing or ignored by diffusers' loader{': ' + ', '.join(unmatched[:3]) if unmatched else ''}. Used "
                "as it is, it would have less effect than it was trained to have. Please report this with the name of "
                "the base model."
            )
