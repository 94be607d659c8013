"""Answers of a language model, with and without LoRAs: to prompts, or in a chat."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import CrucibleError, errors_about
from .exit_status import Outcome

if TYPE_CHECKING:
    from ..data.text.rows import Turn
    from ..merging.ingredients import Strengths
    from ..models.language.model import Answer
    from ..models.language.side_by_side import SideBySide

LENGTH = 128
"""The longest answer, in tokens, if nothing is said."""

HELP = """Write a prompt, or:
  /lora NAME STRENGTH  set the strength of a LoRA; 0 turns it off
  /new                 begin a new conversation
  /quit                end"""


def ask(options: argparse.Namespace, loras: Sequence[Strengths]) -> Outcome:
    """Answer the prompts of the command `sample`, or chat if there are none.

    Raises:
        CrucibleError: the model or a LoRA cannot be used.
    """
    from ..merging.model_folder import read_model_folder
    from ..models.language.side_by_side import SideBySide

    length = LENGTH if options.max_new_tokens is None else options.max_new_tokens
    if length < 1:
        raise CrucibleError(
            f"--max_new_tokens is {length}, but an answer needs at least 1 token. 128 is usual.", "settings"
        )
    with ExitStack() as opened:
        model = _language_model(options, loras)
        opened.enter_context(model.session("auto"))
        with errors_about("model"):
            weights = opened.enter_context(read_model_folder(model.folder).base_weights()) if loras else None
            asked = SideBySide(model, loras, weights, length, options.seed)
        if options.prompt:
            return Outcome({"answers": _answer(asked, options.prompt)})
        _chat(asked, _lines())
        return Outcome()


def _language_model(options: argparse.Namespace, loras: Sequence[Strengths]) -> Any:
    from ..config import parse_config
    from .texts import language_model

    config = parse_config(
        {
            "base_model": options.base_model,
            "task_type": "text-generation",
            "chat_template": options.chat_template or trained_with(loras),
            "load_in_4bit": options.load_in_4bit,
        }
    )
    with errors_about("model"):
        return language_model(config, lambda: None, weights=True, download=options.download)


def trained_with(loras: Sequence[Strengths]) -> str:
    """Return the name of the chat template that LoRAs were trained with; "auto" if they do not say or disagree."""
    found = set()
    for one in loras:
        try:
            found.add(json.loads(one.lora.metadata.get("crucible.config", "{}")).get("chat_template"))
        except (ValueError, AttributeError):
            continue
    names = {name for name in found if isinstance(name, str)}
    return names.pop() if len(names) == 1 else "auto"


def _answer(asked: SideBySide, prompts: Sequence[str]) -> list[dict[str, str | None]]:
    from ..data.text.rows import Turn

    turns = [[Turn("user", prompt)] for prompt in prompts]
    of_base = asked.of_base(turns)
    adapted = asked.with_loras(turns) if any(asked.strengths.values()) else None
    for number, prompt in enumerate(prompts):
        print(f"Prompt: {prompt}")
        _show(asked, of_base[number], adapted[number] if adapted else None)
    return [
        {"prompt": prompt, "base": of_base[number].text, "with_loras": adapted[number].text if adapted else None}
        for number, prompt in enumerate(prompts)
    ]


def _show(asked: SideBySide, of_base: Answer, adapted: Answer | None) -> None:
    print(f"  base: {_text(of_base)}")
    if adapted is not None:
        used = ", ".join(f"{name}:{strength:g}" for name, strength in asked.strengths.items() if strength)
        print(f"  with {used}: {_text(adapted)}")
    print(flush=True)


def _text(answer: Answer) -> str:
    return answer.text.strip() + ("" if answer.stopped else " … (longest answer reached)")


def _lines() -> Iterator[str]:
    """Yield what the user writes, line by line, from a terminal or a pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    print(HELP)
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def _chat(asked: SideBySide, lines: Iterator[str]) -> None:
    from ..data.text.rows import Turn
    from ..models.language.side_by_side import PromptTooLong

    of_base: list[Turn] = []
    adapted: list[Turn] = []
    for line in map(str.strip, lines):
        command, *words = line.split()[:3] or [""]
        if command == "/quit":
            return
        if command == "/new":
            of_base, adapted = [], []
        elif command == "/lora":
            _set_strength(asked, words)
        elif command.startswith("/"):
            print(HELP)
        elif line:
            of_base.append(Turn("user", line))
            adapted.append(Turn("user", line))
            try:
                (plain,) = asked.of_base([of_base])
                (other,) = asked.with_loras([adapted]) if any(asked.strengths.values()) else (None,)
            except PromptTooLong as error:
                print(error)
                del of_base[-1], adapted[-1]
                continue
            _show(asked, plain, other)
            of_base.append(Turn("assistant", plain.text))
            adapted.append(Turn("assistant", (other or plain).text))


def _set_strength(asked: SideBySide, words: Sequence[str]) -> None:
    try:
        name, strength = words
        asked.set_strength(name, float(strength))
    except ValueError:
        print("Write /lora, the name of the LoRA and its strength: /lora mine 0.5")
    except CrucibleError as error:
        print(error)
