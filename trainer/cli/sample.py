"""The command `python -m trainer sample`, which asks a language model with and without LoRAs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..doctor.requirements import STANDALONE
from ..errors import CrucibleError
from .stacked import stacked

if TYPE_CHECKING:
    from ..data.text.rows import Turn
    from ..merging.ingredients import Strengths
    from ..models.language.model import Answer
    from ..models.language.side_by_side import SideBySide

HELP = """Write a prompt, or:
  /lora NAME STRENGTH  set the strength of a LoRA; 0 turns it off
  /new                 begin a new conversation
  /quit                end"""


def add_sample_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    sample = commands.add_parser("sample", help="ask a language model, with and without LoRAs side by side")
    sample.add_argument("--base_model", required=True, metavar="FOLDER", help="the language model")
    sample.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="LORA.safetensors[:STRENGTH]",
        help="a LoRA, or a folder in PEFT's form, and its strength (default: 1); may be repeated",
    )
    sample.add_argument("--prompt", action="append", default=[], help="may be repeated; without any, you can chat")
    sample.add_argument("--max_new_tokens", type=int, default=128, help="the longest answer (default: %(default)s)")
    sample.add_argument("--seed", type=int, help="sample with this seed (default: the likeliest token each time)")
    sample.add_argument("--chat_template", help="default: the one that the LoRA was trained with")
    sample.add_argument("--load_in_4bit", action="store_true", help="hold the model in 4 bits")
    sample.add_argument("--download", action="store_true", help="download the model if it is a hub id")
    sample.set_defaults(command=_sample, needs=STANDALONE)


def _sample(options: argparse.Namespace) -> None:
    from ..merging.model_folder import read_model_folder
    from ..models.language.side_by_side import SideBySide

    if options.max_new_tokens < 1:
        raise CrucibleError(
            f"--max_new_tokens is {options.max_new_tokens}, but an answer needs at least 1 token. 128 is usual."
        )
    loras = [stacked(text) for text in options.lora]
    with ExitStack() as opened:
        model = _language_model(options, loras)
        opened.enter_context(model.session("auto"))
        weights = opened.enter_context(read_model_folder(model.folder).base_weights()) if loras else None
        asked = SideBySide(model, loras, weights, options.max_new_tokens, options.seed)
        if options.prompt:
            _answer(asked, options.prompt)
        else:
            _chat(asked, _lines())


def _language_model(options: argparse.Namespace, loras: Sequence[Strengths]) -> Any:
    from ..config import parse_config
    from .texts import language_model

    config = parse_config(
        {
            "base_model": options.base_model,
            "task_type": "text-generation",
            "chat_template": options.chat_template or trained_with(loras),
            "load_in_4bit": options.load_in_4bit,
            "max_new_tokens": options.max_new_tokens,
        }
    )
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


def _answer(asked: SideBySide, prompts: Sequence[str]) -> None:
    from ..data.text.rows import Turn

    turns = [[Turn("user", prompt)] for prompt in prompts]
    of_base = asked.of_base(turns)
    adapted = asked.with_loras(turns) if any(asked.strengths.values()) else None
    for number, prompt in enumerate(prompts):
        print(f"Prompt: {prompt}")
        _show(asked, of_base[number], adapted[number] if adapted else None)


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
