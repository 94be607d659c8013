"""The sample answers that a run writes to show what the adapter does."""

from __future__ import annotations

from collections.abc import Sequence

from ...data.text.rows import Turn
from ..previews import Previewer, Sampling
from .model import LanguageBaseModel


class AnswerPreviewer(Previewer):
    """Answers sample prompts, each as the first message of a conversation, with the likeliest token each time.

    Args:
        base_model: the model that answers.
        max_new_tokens: the most tokens of an answer.
    """

    def __init__(self, base_model: LanguageBaseModel, max_new_tokens: int) -> None:
        self._base_model, self._max_new_tokens = base_model, max_new_tokens

    def prepare(self, samplings: Sequence[Sampling]) -> None:
        return

    def draw(self, sampling: Sampling) -> tuple[str, ...]:
        prompts = [self._base_model.renderer.prompt([Turn("user", prompt)]) for prompt in sampling.prompts]
        answers = self._base_model.answers(prompts, self._max_new_tokens) if prompts else []
        return tuple(answer.text for answer in answers)
