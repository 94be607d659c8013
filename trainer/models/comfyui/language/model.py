"""A base model made from the CLIP of a ComfyUI graph, for training the language model that is loaded there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ....adapters.adapters import Adapters
from ....adapters.dropout import RowSeeds
from ....adapters.spec import AdapterSpec
from ....adapters.targets import is_adaptable
from ....errors import CrucibleError
from ....formats.architectures import ARCHITECTURES
from ....formats.layer_names import language_key
from ....optim.engine import DTYPES, Engine
from ...language.loss import Head
from ...language.model import USUAL_LONGEST, Answer, LanguageBaseModel
from ...language.previews import AnswerPreviewer
from .. import attaching, memory, naming, suitability
from ..encoding import patched_weights_hash
from ..frozen import fetched_weight
from ..loading import LoadedPatcher
from .generation import write
from .renderer import ClipRenderer
from .support import language_encoder, warnings_of

_LAYERS = "model.layers."
"""The start of the paths of layers that can have an adapter: not the head, nor what sees pictures."""


class ClipLanguageBaseModel(LanguageBaseModel):
    """The language model in a CLIP that ComfyUI has loaded.

    It stays under ComfyUI's memory management, and reads, writes and names its layers as core's nodes do: a LoRA of it
    does in Generate Text what it did in the run.

    Args:
        clip: the CLIP from a loader node.
        check_interrupt: a function called before each batch and each token of an answer; it may raise to stop.
        max_seq_length: the most tokens of an example; None for what the model can read, up to 2,048.
        train_on_prompts: whether prompts are trained as well as answers.

    Raises:
        CrucibleError: the CLIP has no language model that can be trained, or it reads fewer tokens than asked for.
    """

    def __init__(
        self,
        clip: Any,
        check_interrupt: Callable[[], None] = memory.check_interrupt,
        *,
        max_seq_length: int | None = None,
        train_on_prompts: bool = False,
    ) -> None:
        if clip is None:
            raise CrucibleError(
                "The connected CLIP is empty: the checkpoint it comes from contains none, so there is no language "
                "model to train. Load one with Load CLIP and connect that."
            )
        self._clip = self._clip_in_use = clip
        self._check_interrupt = check_interrupt
        self._encoder = language_encoder(clip)
        self._transformer = self._encoder.transformer
        config = self._transformer.model.config
        self.name = self._encoder.title
        self.architecture = ARCHITECTURES["language"]
        self.vocabulary = config.vocab_size
        self.parameters = sum(parameter.numel() for parameter in self._transformer.model.parameters())
        self.linear_sizes = sum(sum(shape) for shape in self.layer_shapes().values())
        self.reads = config.max_position_embeddings
        self.longest = self._longest(max_seq_length)
        self.renderer = ClipRenderer(clip, self._encoder, train_on_prompts)
        device = clip.patcher.load_device
        if not comfy.model_management.is_device_cpu(device):
            self.spare_memory = comfy.model_management.get_total_memory(device) - clip.patcher.model_size()
        self._rows = RowSeeds()
        self._adapters: Adapters | None = None
        self.memory = self._loaded = LoadedPatcher(clip.patcher)
        self.previewer = AnswerPreviewer(self)

    def _longest(self, asked: int | None) -> int:
        if asked is not None and self.reads is not None and asked > self.reads:
            raise CrucibleError(
                f"max_seq_length is {asked:,}, but {self.name} reads {self.reads:,} tokens at most, and what it writes "
                f"after longer texts is of no use. Set max_seq_length to {self.reads} or less."
            )
        return asked or min(USUAL_LONGEST, self.reads or USUAL_LONGEST)

    def warnings(self) -> tuple[str, ...]:
        return warnings_of(self._encoder, suitability.file_names(self._clip.patcher))

    def identity(self) -> str:
        return patched_weights_hash(self._clip.patcher)

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        self._clip_in_use = self._clip.clone()
        patcher = self._clip_in_use.patcher
        self._engine = _ClipEngine(patcher.load_device, _compute_dtype(mixed_precision, patcher.load_device))
        self._loaded.start(patcher)
        with memory.gradients_allowed():
            try:
                yield self._engine
            finally:
                patcher.cleanup()
                # Undo what loading changed on the module that all clones share.
                comfy.model_management.unload_model_and_clones(patcher)
                self._loaded.end()
                self._clip_in_use = self._clip

    @contextmanager
    def head(self) -> Iterator[Head]:
        decoder = self._transformer.model
        layer = decoder.lm_head if decoder.config.lm_head else decoder.embed_tokens
        like = torch.empty((), dtype=self._engine.compute, device=self._engine.device)
        with fetched_weight(layer, like) as weight:
            yield Head(weight)

    def hidden_states(self, tokens: Tensor) -> Tensor:
        self._loaded.load(self._guessed_room(tokens.numel()))
        with torch.no_grad():
            embeddings = self._transformer.get_input_embeddings()(tokens, out_dtype=torch.float32)
        states: Tensor = self._transformer(None, embeds=embeddings.to(self._engine.compute))[0]
        return states

    def _guessed_room(self, tokens: int) -> int:
        """Return a rough estimate of the bytes of activations that a step keeps for backward."""
        config = self._transformer.model.config
        kept = tokens * config.num_hidden_layers * (16 * config.hidden_size + 4 * config.intermediate_size)
        return kept * self._engine.compute.itemsize

    @contextmanager
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        self._loaded.set_checkpointing(gradient_checkpointing)
        with attaching.attached(
            self._transformer,
            spec,
            {path: key for key, path in self.paths.items()},
            self._engine.device,
            self._engine.compute,
            self._loaded.checkpointing,
            self._rows,
        ) as layers:
            self._adapters = Adapters(layers)
            try:
                yield self._adapters
            finally:
                self._adapters = None

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        without_dropout = nullcontext() if self._adapters is None else self._adapters.without_dropout()
        # Generation has the model loaded with less room than a step needs.
        self._loaded.was_unloaded()
        with memory.as_in_a_node(), without_dropout:
            return write(self._clip_in_use, self._encoder, prompts, max_new_tokens, seed, self._check_interrupt)

    @cached_property
    def paths(self) -> dict[str, str]:
        modules = self._transformer.named_modules()
        layers = [path for path, module in modules if path.startswith(_LAYERS) and is_adaptable(module)]
        return {language_key(path): path for path in layers}

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: naming.weight_shape(self._transformer.get_submodule(path)) for key, path in self.paths.items()}

    def verify(self, path: Path, layers: int) -> None:
        naming.verify(None, self._clip, path, layers)


class _ClipEngine(Engine):
    """The engine of a model whose layers cast their weights to the dtype of what they are given."""

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()


def _compute_dtype(mixed_precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the activations; auto is what ComfyUI generates texts in."""
    if mixed_precision in DTYPES:
        return DTYPES[mixed_precision]
    return torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float32
