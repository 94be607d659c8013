"""What a language model in ComfyUI reads of a row: the tokens that core's Generate Text node gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....data.text.rendering import Rendered, UnrenderableRow
from ....data.text.rows import Turn
from .support import LanguageEncoder


class ClipRenderer:
    """Renders rows through a CLIP's own tokenizer, as Generate Text does with its default options.

    Each CLIP type has its own way of putting a prompt into a conversation, even for the same file: a plain ChatML turn,
    one with an empty think block, one with a fixed system line, or nothing at all. Some pad short prompts. All of that
    becomes part of the prompt, so that training sees what the trained model will be given.

    Args:
        clip: the CLIP.
        encoder: its language model.
        train_on_prompts: whether prompts are trained as well as answers.

    Attributes:
        name, stop_token, chat_template: as in `Renderer`. There is no template in Jinja.
    """

    name = "the CLIP's own template"
    chat_template = ""

    def __init__(self, clip: Any, encoder: LanguageEncoder, train_on_prompts: bool = False) -> None:
        self._clip, self._encoder = clip, encoder
        self._train_on_prompts = train_on_prompts
        self._start = list(encoder.tokenizer.tokenizer("")["input_ids"])[: encoder.tokenizer.tokens_start]
        self.stop_token = self._end_of_turn()

    def _end_of_turn(self) -> int:
        """Return the token that ends an answer: the one that ends the user's turn, if generation stops at it."""
        ends = self._encoder.stop_tokens
        used = set(self.prompt([Turn("user", "a")]))
        return next((token for token in ends if token in used), ends[-1])

    def prompt(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Return the tokens of a prompt up to where the model's answer begins.

        Raises:
            UnrenderableRow: the conversation is more than a single prompt, or the prompt uses an embedding file.
        """
        if [turn.role for turn in turns] != ["user"]:
            has_system = any(turn.role == "system" for turn in turns)
            raise UnrenderableRow(
                f"has {'a system message' if has_system else 'several turns'}, and in ComfyUI this model is given a "
                "single prompt at a time, so it would never see that again. "
                + (
                    "Put the text of the system message in front of the prompt, or remove it."
                    if has_system
                    else "Make it a row with the last prompt and its answer."
                )
            )
        tokens = self._encoder.of_clip(
            # The arguments of Generate Text.
            self._clip.tokenize(
                turns[0].text, image=None, skip_template=False, min_length=1, thinking=False, video=None, audio=None
            )
        )
        found = [token for part in tokens for token, *_ in part]
        if not all(isinstance(token, int) for token in found):
            raise UnrenderableRow(
                "has a prompt with embedding:…, which ComfyUI reads as a textual inversion file, and no text can be "
                "trained through one. Remove it from the prompt, or write it in another way."
            )
        return tuple(found)

    def conversation(self, turns: Sequence[Turn]) -> Rendered:
        """Return the tokens of a prompt and its answer, up to the stop token.

        Raises:
            UnrenderableRow: as for `prompt`.
        """
        asked = self.prompt(turns[:-1])
        answer = (*self._encode(turns[-1].text), self.stop_token)
        return Rendered((*asked, *answer), (*self._trained_of(asked), *[True] * len(answer)))

    def _trained_of(self, prompt: Sequence[int]) -> list[bool]:
        """Return which tokens of a prompt are trained; padding and the first token never are."""
        padding = self._encoder.tokenizer.pad_token
        start = next((place for place, token in enumerate(prompt) if token != padding), 0)
        return [self._train_on_prompts and place > start for place in range(len(prompt))]

    def text(self, text: str) -> Rendered:
        """Return the tokens of a text without any template, trained whole and followed by the stop token.

        BOS is in front where the model has one. Like any first token it is not trained.
        """
        start = self._encoder.tokenizer.start_token
        tokens = [*([] if start is None else [start]), *self._encode(text)]
        if tokens[-1:] != [self.stop_token]:
            tokens.append(self.stop_token)
        return Rendered(tuple(tokens), (False, *[True] * (len(tokens) - 1)))

    def _encode(self, text: str) -> list[int]:
        """Return the tokens of a text as it is: brackets are not weights, and nothing is put around it."""
        tokens = list(self._encoder.tokenizer.tokenizer(text)["input_ids"])
        count = len(self._start)
        return tokens[count:] if count and tokens[:count] == self._start else tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, with special tokens written out."""
        return str(self._encoder.tokenizer.decode(list(tokens), skip_special_tokens=False))
