"""The base model of all language models: what a run, its samples and its measurements need of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...data.text.rendering import Renderer
from ..base import BaseModel
from ..examples import CachedExample


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
    """

    renderer: Renderer

    @abstractmethod
    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        """Write an answer to each prompt, with the adapters as they are.

        Args:
            prompts: the tokens of each prompt, as the renderer gives them.
            max_new_tokens: the most tokens of an answer.
            seed: the seed of sampling at temperature 1; None takes the likeliest token each time.
        """

    @abstractmethod
    def divergence_from_base(self, rows: Sequence[CachedExample]) -> Tensor:
        """Return how far the adapters move the predictions for the trained tokens of each row.

        Returns:
            The mean Kullback-Leibler divergence KL(base || with adapters) per trained token in nats, float32 on the
            CPU, of shape (rows,).
        """
