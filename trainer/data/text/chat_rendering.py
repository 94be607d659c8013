"""Rendering of rows with the tokenizer and the chat template of a transformers model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import CrucibleError
from .rendering import Rendered, UnrenderableRow
from .rows import Turn
from .templates import NAMED, named_template

PROBE = "\ue000answer\ue001"
"""An answer that occurs in no template; rendering it shows what a template puts around answers."""

THINK_END = "</think>"
_THINK_START = re.compile(r"\s*<think>\s*")


class ChatRenderer:
    """Renders rows through the chat template of a tokenizer, or a named one.

    What is trained is known by its place: a prompt is rendered up to where the answer begins, and the answer and the
    stop token are put behind it. No marker is searched in the text, so what a row says does not matter.

    Args:
        tokenizer: a tokenizer of transformers (`PreTrainedTokenizerBase`).
        template_name: auto for the tokenizer's own template, or one of `NAMED`.
        train_on_prompts: whether prompts are trained as well as answers.
        thinking: whether `prompt` asks for answers that begin with a think block, where the template knows them. The
            prompts of rows follow their answers, which have one or not.

    Attributes:
        name: the template in messages to the user.
        stop_token: the id of the token that ends an answer: what the template puts behind answers, otherwise the
            tokenizer's token for the end of a text.
        chat_template: the Jinja template, which belongs to the model wherever it is used; "" if there is none. BOS is
            part of it where the tokenizer puts it in front of every text.

    Raises:
        CrucibleError: the tokenizer has no token for the end of a text, or there is no template of this name.
    """

    def __init__(
        self, tokenizer: Any, template_name: str = "auto", train_on_prompts: bool = False, thinking: bool = False
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise CrucibleError(
                "The tokenizer of the model names no token that ends a text (eos_token), so answers could not end. Add "
                "it to tokenizer_config.json in the model's folder, as its publisher has it."
            )
        self._tokenizer = tokenizer
        self._train_on_prompts = train_on_prompts
        self._thinking = thinking
        self._adds_bos = tokenizer.bos_token_id is not None and self._first_token() == tokenizer.bos_token_id
        self.chat_template = self._template(template_name)
        own = template_name == "auto"
        self.name = "the tokenizer's chat template" if own else f"the template {template_name}"
        self._lead, self._stop_text = self._around_answers() if self.chat_template else ("", "")
        self.stop_token: int = self._stop_id() or tokenizer.eos_token_id

    def _first_token(self) -> int | None:
        tokens = self._tokenizer.encode("a")
        return tokens[0] if len(tokens) else None

    def _template(self, name: str) -> str:
        if name == "auto":
            own = self._tokenizer.chat_template
            template = (own.get("default") or next(iter(own.values()), "")) if isinstance(own, dict) else own or ""
        else:
            stop = NAMED[name][1] if name in NAMED else ""
            template = named_template(name, self._tokenizer.eos_token, self._special(stop) is not None)
        if not template or not self._adds_bos:
            return template
        self.chat_template = template
        try:
            text = self._written([Turn("user", "a")], ask=True)
        except UnrenderableRow:
            return template
        return template if text.startswith(self._tokenizer.bos_token) else "{{ bos_token }}" + template

    def _special(self, text: str) -> int | None:
        """Return the id of a text that is a single token in the tokenizer and kept whole in any text."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False) if text else []
        known = self._tokenizer.get_added_vocab()
        return tokens[0] if len(tokens) == 1 and (text in known or text == self._tokenizer.eos_token) else None

    def _around_answers(self) -> tuple[str, str]:
        """Return the texts that the template puts between a prompt and its answer, and behind an answer."""
        asked = [Turn("user", "question")]
        try:
            prompt = self._written(asked, ask=True)
            whole = self._written([*asked, Turn("assistant", PROBE)], ask=False)
        except UnrenderableRow:
            return "", ""
        before, found, behind = whole.partition(PROBE)
        if not found:
            return "", ""
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        return lead, behind

    def _stop_id(self) -> int | None:
        """Return the id of the special token that the template puts behind answers, and keep its text alone."""
        text = self._stop_text.lstrip()
        known = {*self._tokenizer.get_added_vocab(), self._tokenizer.eos_token}
        names = [name for name in known if name and text.startswith(name)]
        self._stop_text = max(names, key=len, default="")
        return self._special(self._stop_text)

    def prompt(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Return the tokens of a conversation up to where the model's next answer begins.

        Raises:
            UnrenderableRow: the template does not take the conversation, or there is none.
        """
        return self._asked(turns, self._thinking)[1].tokens

    def conversation(self, turns: Sequence[Turn]) -> Rendered:
        """Return the tokens of a conversation whose last turn is an answer, up to its stop token.

        Raises:
            UnrenderableRow: the template does not take the conversation, or there is none.
        """
        return self._answered(turns)[1]

    def text(self, text: str) -> Rendered:
        """Return the tokens of a text that is trained whole, followed by the stop token.

        BOS is in front where the tokenizer puts it there. Like any first token it is not trained, because nothing comes
        before it that it could be predicted from.
        """
        tokens = self._encode(text)
        if self._adds_bos and tokens[:1] != [self._tokenizer.bos_token_id]:
            tokens = [self._tokenizer.bos_token_id, *tokens]
        if tokens[-1:] != [self.stop_token]:
            tokens.append(self.stop_token)
        return Rendered(tuple(tokens), (False, *[True] * (len(tokens) - 1)))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, with special tokens written out."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def _answered(self, turns: Sequence[Turn]) -> tuple[str, Rendered]:
        """Return a conversation that ends with an answer, as text and as tokens."""
        answer = turns[-1].text
        thinks = THINK_END in answer
        text, asked = self._asked(turns[:-1], thinks)
        if thinks and text.rstrip().endswith("<think>"):  # the template itself opens the block
            answer = _THINK_START.sub("", answer, count=1)
        elif not thinks and text.rstrip().endswith("<think>"):
            raise UnrenderableRow(
                "has an answer without a think block, and the model's chat template begins one for every answer. Put "
                "<think>…</think> in front of the answers, or set chat_template to another one, such as chatml."
            )
        lead = "" if self._lead.strip() else self._lead
        tokens = self._continued(text, list(asked.tokens), lead + answer)
        whole = (*asked.tokens, *tokens, self.stop_token)
        return text + lead + answer + self._stop_text, Rendered(
            whole, (*asked.trained, *[True] * (len(whole) - len(asked.tokens)))
        )

    def _asked(self, turns: Sequence[Turn], thinking: bool) -> tuple[str, Rendered]:
        """Return a conversation up to where the next answer begins; answers in it that stay as they were are trained.

        What the template puts between a prompt and its answer, such as an empty think block, belongs to the prompt.
        White space there belongs to the answer, because it is one token with the answer's first word in many
        vocabularies.
        """
        text = self._written(turns, ask=True, thinking=thinking)
        self._require_complete(turns, text)
        if self._lead.strip() and not thinking:
            text += self._lead
        last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=None)
        if last is not None and self._stop_text:
            before, rendered = self._answered(turns[: last + 1])
            if text.startswith(before):
                more = self._continued(before, list(rendered.tokens), text[len(before) :])
                added = [self._train_on_prompts] * len(more)
                return text, Rendered((*rendered.tokens, *more), (*rendered.trained, *added))
        tokens = self._encode(text)
        trained = [self._train_on_prompts and place > 0 for place in range(len(tokens))]
        return text, Rendered(tuple(tokens), tuple(trained))

    def _require_complete(self, turns: Sequence[Turn], text: str) -> None:
        for turn in turns:
            if turn.role != "assistant" and turn.text.strip() not in text:
                raise UnrenderableRow(
                    f"has a {turn.role} message that {self.name} leaves out or changes ({turn.text.strip()[:40]}), so "
                    "the model would not see it. Put its text in front of the first prompt, or choose another "
                    "chat_template."
                )

    def _written(self, turns: Sequence[Turn], *, ask: bool, thinking: bool = False) -> str:
        """Return turns as the template writes them.

        Args:
            turns: the conversation.
            ask: whether the beginning of the next answer follows.
            thinking: whether that answer begins with a think block; templates that know none ignore it.
        """
        if not self.chat_template:
            raise UnrenderableRow(
                "is a conversation, and the model's tokenizer has no chat template that says how to write it. Set "
                f"chat_template to one of {', '.join(NAMED)}."
            )
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.chat_template,
                    tokenize=False,
                    add_generation_prompt=ask,
                    enable_thinking=thinking,
                )
            )
        except Exception as error:  # a template is a program of the model's publisher and can fail in any way
            has_system = any(turn.role == "system" for turn in turns)
            remedy = (
                "If it has no place for system messages, put their text in front of the first prompt"
                if has_system
                else "Check that prompts and answers take turns"
            )
            raise UnrenderableRow(
                f"is not taken by {self.name} ({error}). {remedy}, or choose another chat_template, such as chatml."
            ) from error

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _continued(self, before: str, tokens: list[int], text: str) -> list[int]:
        """Return the tokens of a text that continues another, without changing those of the other.

        Args:
            before: the other text.
            tokens: its tokens.
            text: the text that continues it.
        """
        whole = self._encode(before + text)
        if whole[: len(tokens)] == tokens:
            return whole[len(tokens) :]
        # A token would reach from one text into the other. A special token in front keeps the text from being taken for
        # the beginning of a text, where some vocabularies add a space.
        anchor = self._tokenizer.eos_token
        anchored = self._encode(anchor + text)
        return anchored[1:] if anchored[:1] == [self._tokenizer.eos_token_id] else self._encode(text)
