"""The base model of all language models: what a run, its samples and its measurements need of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...adapters.adapters import Adapters
from ...adapters.dropout import RowSeeds
from ...config import ModelFacts
from ...data.base import Dataset
from ...data.cache import TensorCache
from ...data.text.dataset import TextDataset
from ...data.text.examples import TextExample
from ...data.text.rendering import Renderer
from ...errors import CrucibleError
from ...formats.language_file import in_comfyui_names
from ...formats.names import Place
from ...optim.engine import Engine
from ..base import BaseModel
from ..examples import CachedExample, Progress, RowLosses
from .inputs import TextBatch, TextInputs, cached_examples, collated
from .loss import Head, divergences, token_losses
from .places import place_finder

USUAL_LONGEST = 2048
"""The most tokens of an example unless the user sets another number."""


@dataclass(frozen=True)
class Answer:
    """An answer that a language model wrote.

    Attributes:
        text: the answer without the prompt and the stop token.
        tokens: its token ids without the stop token.
        stopped: whether the model ended it by itself; False if it reached the longest answer.
    """

    text: str
    tokens: tuple[int, ...]
    stopped: bool


class LanguageBaseModel(BaseModel):
    """A base model that predicts the next token.

    Attributes:
        renderer: turns rows into the tokens that the model reads.
        longest: the most tokens of an example.
        reads: the most tokens that it can read at all, answer included; None if that is not known.
        parameters, linear_sizes, spare_memory: as in `ModelFacts`.
        vocabulary: the number of tokens that it has embeddings for.
    """

    renderer: Renderer
    longest: int
    reads: int | None = None
    parameters: int
    linear_sizes: int
    spare_memory: int | None = None
    vocabulary: int
    _adapters: Adapters | None
    _check_interrupt: Callable[[], None]
    _engine: Engine
    _rows: RowSeeds

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(
            self.architecture.id,
            parameters=self.parameters,
            linear_sizes=self.linear_sizes,
            spare_memory=self.spare_memory,
        )

    @abstractmethod
    def head(self) -> AbstractContextManager[Head]:
        """Return a context with the last layer, which turns hidden states into logits; it is only valid inside."""

    @abstractmethod
    def hidden_states(self, tokens: Tensor) -> Tensor:
        """Compute the hidden states that logits are computed from, with the adapters as they are.

        Args:
            tokens: the token ids (rows, length), with padding at the end.

        Returns:
            The hidden states (rows, length, width) after the last norm.
        """

    @abstractmethod
    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        """Write an answer to each prompt, with the adapters as they are.

        Args:
            prompts: the tokens of each prompt, as the renderer gives them.
            max_new_tokens: the most tokens of an answer.
            seed: the seed of sampling at temperature 1; None takes the likeliest token each time.
        """

    @property
    @abstractmethod
    def paths(self) -> Mapping[str, str]:
        """The path in the model of each layer that can have an adapter, by its key."""

    def place_of(self, name: str) -> Place | None:
        return self._places(name)

    @cached_property
    def _places(self) -> Callable[[str], Place | None]:
        return place_finder(self.paths)

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return in_comfyui_names(state_dict, self.paths)

    def prepare_dataset(self, dataset: Dataset) -> Dataset:
        if not isinstance(dataset, TextDataset):
            raise CrucibleError(
                f"{dataset.name} is a dataset of {dataset.unit}s, but {self.name} is a language model, which learns "
                "from texts. Set train_data_dir to a file or folder of texts (.jsonl, .json, .csv or .txt), or set "
                "task_type to text-to-image and base_model to a model that makes images."
            )
        return dataset.rendered(self.renderer, self.longest)

    def cache_inputs(
        self,
        examples: Sequence[TextExample],
        cache: TensorCache,
        caption_dropout: float,
        encode_captions: bool,
        progress: Progress,
    ) -> list[CachedExample[TextInputs]]:
        return cached_examples(examples, self.vocabulary, progress)

    def losses(
        self, rows: Sequence[CachedExample[TextInputs]], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        self._check_interrupt()
        batch = collated([row.inputs for row in rows], self._engine.device)
        with self._rows.used(seeds), self._engine.autocast():
            hidden = self._trained_states(batch)
            values = torch.stack(
                [losses.mean() for losses in self._token_losses(hidden, batch, seeds).split(batch.counts)]
            )
        return RowLosses(values, values.detach())

    def _token_losses(self, hidden: Tensor, batch: TextBatch, seeds: Sequence[int]) -> Tensor:
        with self.head() as head:
            if head.layer is None:
                return token_losses(hidden, batch.targets, head)
            # Row by row, so that the dropout of the head's adapter does not depend on the other rows.
            found = []
            parts = zip(hidden.split(batch.counts), batch.targets.split(batch.counts), seeds, strict=True)
            for states, targets, seed in parts:
                with self._rows.used([seed]):
                    found.append(token_losses(states, targets, head, self._rows.checkpoint_contexts))
            return torch.cat(found)

    def _trained_states(self, batch: TextBatch) -> Tensor:
        """Compute the hidden states (trained tokens, width) that the trained tokens are predicted from."""
        hidden = self.hidden_states(batch.tokens)
        return hidden.flatten(0, 1).index_select(0, batch.places.to(hidden.device))

    @torch.no_grad()
    def divergence_from_base(self, rows: Sequence[CachedExample[TextInputs]]) -> Tensor:
        """Return how far the adapters move the predictions for the trained tokens of each row.

        Returns:
            The mean Kullback-Leibler divergence KL(base || with adapters) per trained token in nats, float32 on the
            CPU, of shape (rows,).
        """
        self._check_interrupt()
        batch = collated([row.inputs for row in rows], self._engine.device)
        adapters = self._adapters
        assert adapters is not None, "without adapters there is nothing to compare"
        with adapters.without_dropout(), self._engine.autocast():
            adapted = self._trained_states(batch)
            with adapters.without_effect():
                base = self._trained_states(batch)
            with self.head() as head:
                found = divergences(base, adapted, head, adapters.without_effect)
        return torch.stack([one.mean() for one in found.split(batch.counts)]).cpu()
