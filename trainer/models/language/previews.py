"""The sample answers that a run writes to show what the adapter does."""

from __future__ import annotations

from collections.abc import Sequence

from ...data.text.rendering import prompt_tokens
from ...data.text.rows import Turn
from ..previews import Previewer, Sampling
from .model import LanguageBaseModel


class AnswerPreviewer(Previewer):
    """Answers sample prompts, each as the first message of a conversation, with the likeliest token each time.

    Args:
        base_model: the model that answers.
    """

    def __init__(self, base_model: LanguageBaseModel) -> None:
        self._base_model = base_model

    def prepare(self, samplings: Sequence[Sampling]) -> None:
        return

    def draw(self, sampling: Sampling) -> tuple[str, ...]:
        prompts = [prompt_tokens(self._base_model.renderer, [Turn("user", prompt)]) for prompt in sampling.prompts]
        return tuple(answer.text for answer in self._base_model.answers(prompts, sampling.max_new_tokens))
