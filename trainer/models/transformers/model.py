"""A base model made from a folder of transformers, for training language models without ComfyUI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...adapters.adapters import Adapters
from ...adapters.dropout import RowSeeds
from ...adapters.peft_layers import adapted
from ...adapters.spec import AdapterSpec
from ...adapters.targets import is_adaptable
from ...config import ResolvedConfig
from ...data.text.rendering import Renderer
from ...distributed.processes import current
from ...files.hub import DownloadProgress
from ...formats.architectures import ARCHITECTURES
from ...formats.layer_names import language_key
from ...messages.wording import size_text
from ...optim.engine import DTYPES, Engine
from ..language.loss import Head
from ..language.model import USUAL_LONGEST, Answer, LanguageBaseModel
from ..language.previews import AnswerPreviewer
from ..split_refusals import refuse_split_4bit, refuse_split_dora
from ..splitting import split_parameters
from . import suitability
from .adapter_folder import save_adapter_folder
from .folder import read_folder, weight_tensors
from .four_bits import with_shapes
from .generation import generate
from .identity import model_identity
from .loading import is_spread, load_model, load_split_model, load_tokenizer, outline, require_4bit, size_in_memory
from .memory import LanguageMemory
from .resolve import DEMO, find_folder
from .spreading import place_adapters
from .verify import require_known_layers

log = logging.getLogger(__name__)


class TransformersBaseModel(LanguageBaseModel):
    """A causal language model from a folder in transformers' format.

    Args:
        base_model: a folder with config.json, safetensors and a tokenizer, owner/name on the Hugging Face hub, or
            `demo`.
        check_interrupt: a function called before each batch and each token of an answer; it may raise to stop.
        make_renderer: a function from the model's tokenizer to its renderer.
        weights: whether the model will be trained. Without, it can only tell what it could be trained with.
        load_in_4bit: whether to hold the frozen weights in 4 bits.
        split: whether to split the frozen weights over the processes of the run.
        max_seq_length: the most tokens of an example; None for what the model can read, up to 2,048.
        download: whether a model on the hub may be downloaded.
        progress, announce: as for `find_folder`.

    Attributes:
        tokenizer: the model's tokenizer.
        folder: its folder.

    Raises:
        CrucibleError: there is no such model, it is not a language model that can be trained, or its files are
            incomplete.
    """

    def __init__(
        self,
        base_model: str,
        check_interrupt: Callable[[], None] = lambda: None,
        *,
        make_renderer: Callable[[Any], Renderer],
        weights: bool = True,
        load_in_4bit: bool = False,
        split: bool = False,
        max_seq_length: int | None = None,
        download: bool = False,
        progress: DownloadProgress = lambda done, total, file: None,
        announce: Callable[[str], None] = log.info,
    ) -> None:
        self._check_interrupt = check_interrupt
        if load_in_4bit:
            refuse_split_4bit(split)
            require_4bit()
        path = find_folder(base_model, download=download, progress=progress, announce=announce)
        shown = "" if path == Path(base_model).expanduser() else base_model
        self._folder = read_folder(path, "the demo language model" if base_model == DEMO else shown)
        self.name, self.folder = self._folder.name, self._folder.path
        self._reference = base_model if shown and base_model != DEMO else str(self.folder)
        self.architecture = ARCHITECTURES["language"]
        self._outline = outline(self._folder)
        suitability.require_trainable(self._folder, self._outline)
        self.parameters = sum(parameter.numel() for parameter in self._outline.parameters())
        inner = suitability.adaptable(self._outline, with_head=False)
        self.linear_sizes = sum(sum(shape_of(module)) for _, module in inner if is_adaptable(module))
        self.vocabulary = len(self._outline.get_input_embeddings().weight)
        self.tokenizer = load_tokenizer(self._folder)
        self.renderer = make_renderer(self.tokenizer)
        self.reads = self._folder.longest
        self.longest = suitability.longest(self._folder, max_seq_length, USUAL_LONGEST)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._weights, self._load_in_4bit, self._split = weights, load_in_4bit, split
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            self.spare_memory = total - size_in_memory(self._parameters_here, load_in_4bit=load_in_4bit)
        self._rows = RowSeeds()
        self._adapters: Adapters | None = None
        self._model: Any = None
        self._dtype: torch.dtype | None = None
        self.memory: LanguageMemory = LanguageMemory(self._rows)
        self.previewer = AnswerPreviewer(self)

    @property
    def _parameters_here(self) -> int:
        """The number of parameters that this process needs room for at a time."""
        root = suitability.decoder(self._outline)[1]
        return split_parameters(root, self.parameters, current().count) if self._split else self.parameters

    def warnings(self) -> tuple[str, ...]:
        found = []
        if not self._split and is_spread(self.parameters, self.device, load_in_4bit=self._load_in_4bit):
            found.append(
                f"{self.name} ({size_text(self._folder.size)}) is too big for one device, so it is spread over all "
                "graphics cards and main memory, which is slower. load_in_4bit: true or a smaller model avoids that."
            )
        experts = suitability.expert_parameters(self._outline)
        if experts:
            found.append(
                f"{self.name} is a mixture of experts. The experts hold {experts / self.parameters:.0%} of its "
                "parameters and get no adapters; the layers that all tokens pass through, such as attention, do."
            )
        return tuple(found)

    def identity(self) -> str:
        if not self._weights:
            return ""
        return model_identity(self.folder, weight_tensors(self._folder.weights), in_4bit=self._load_in_4bit)

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        assert self._weights, "a model without weights cannot be trained"
        if mixed_precision == "auto":
            mixed_precision = "fp32"
            if self.device.type == "cuda":
                mixed_precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        dtype = DTYPES[mixed_precision]
        self._engine = Engine(self.device, dtype)
        if self._dtype != dtype:
            self._model = self.memory.model = None
            self._model = self._loaded(dtype)
            self.memory.model, self._dtype = self._model, dtype
            with torch.no_grad(), self._engine.autocast():
                suitability.require_own_logits(self._folder, self._model, self._logits)
        with torch.enable_grad():
            yield self._engine

    def _loaded(self, dtype: torch.dtype) -> Any:
        if self._split:
            return load_split_model(self._folder, self.parameters, dtype, self.device)
        return load_model(self._folder, self.parameters, dtype, self.device, load_in_4bit=self._load_in_4bit)

    def _logits(self, tokens: Tensor) -> Tensor:
        with self.head() as head:
            return head.logits(self.hidden_states(tokens).flatten(0, 1)).unflatten(0, tokens.shape)

    @contextmanager
    def head(self) -> Iterator[Head]:
        layer = self._model.get_output_embeddings()
        frozen = getattr(layer, "base_layer", layer)
        config = self._model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0
        scale *= (getattr(config, "lm_head_multiplier", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        is_plain = layer is frozen and frozen.weight.is_floating_point() and frozen.weight.device.type != "meta"
        yield Head(
            frozen.weight,
            frozen.bias,
            getattr(config, "final_logit_softcapping", None) or 0.0,
            scale,
            None if is_plain else layer,
        )

    def hidden_states(self, tokens: Tensor) -> Tensor:
        states: Tensor = suitability.decoder(self._model)[1](input_ids=tokens, use_cache=False).last_hidden_state
        return states

    @contextmanager
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        model = self._outline if self._model is None else self._model
        suitability.require_head_of_its_own(model, spec.patterns)
        if self._split:
            refuse_split_dora(spec)
        with_head = bool(spec.patterns) or language_key(suitability.head_path(model)) in spec.start
        adaptable = suitability.adaptable(model, with_head=with_head)
        shapes, adapters = (
            with_shapes(model, spec),
            adapted(model, spec, language_key, self._rows, adaptable),
        )
        with shapes, adapters as layers:
            place_adapters(layers.values())
            self._adapters = Adapters(layers)
            self.memory.set_checkpointing(gradient_checkpointing)
            try:
                yield self._adapters
            finally:
                self.memory.set_checkpointing(False)
                self._adapters = None

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        without_dropout = nullcontext() if self._adapters is None else self._adapters.without_dropout()
        with self._engine.autocast(), without_dropout:
            return generate(
                self._model, self.renderer, prompts, max_new_tokens, seed, self.device, self._check_interrupt
            )

    @cached_property
    def paths(self) -> dict[str, str]:
        modules = suitability.adaptable(self._outline, with_head=True)
        return {language_key(path): path for path, module in modules if is_adaptable(module)}

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: shape_of(self._outline.get_submodule(path)) for key, path in self.paths.items()}

    def save_beside(self, folder: Path, adapters: Adapters, config: ResolvedConfig) -> str:
        save_adapter_folder(
            folder,
            adapters,
            self.paths,
            base_model=self._reference,
            dtype=DTYPES[config.save_precision],
            tokenizer=self.tokenizer,
            chat_template=self.renderer.chat_template or None,
        )
        return f"For transformers, PEFT and vLLM: {folder}"

    def verify(self, path: Path, layers: int) -> None:
        require_known_layers(path, layers, self.place_of, self.layer_shapes())


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's weight."""
    return tuple(cast(Tensor, module.weight).shape)
