"""Recognizing the layout of raw rows, and reading them as conversations and texts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...messages.suggestions import nearest_names
from ...messages.wording import listed
from .columns import KNOWN, known_columns
from .raw_rows import RawRow, RowProblem
from .rows import Role, Row, RowKind, Turn

ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "question", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "ai", "chatgpt", "bing", "bard", "answer"), "assistant"),
}
"""The names of roles in messages."""

TOOLS = ("tool", "function", "ipython", "observation", "function_call", "tool_call", "tool_response")

NOT_TRAINED: dict[str, Any] = {"weight": 0, "train": False}
"""Keys with which other trainers mark answers that are not to be trained, and the value that says so."""

TITLES: dict[RowKind, str] = {
    "alpaca": "Alpaca (instruction, input, output)",
    "sharegpt": "ShareGPT (conversations with from and value)",
    "messages": "messages (role and content)",
    "prompt_completion": "prompt and answer",
    "text": "text",
}
"""The layouts in messages to the user."""

_HALVES = re.compile("[\ud800-\udfff]")

EXAMPLE = 'such as {"prompt": "red heart", "answer": "a red heart on a white background"} or {"text": "…"}'


class _Unusable(Exception):
    """A row cannot be used."""

    def __init__(self, kind: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.kind, self.what, self.remedy = kind, what, remedy


def read_row(raw: RawRow, columns: Mapping[str, str], *, may_ask: bool = False) -> Row | RowProblem:
    """Read a raw row as a conversation or a text. Whether the roles of its turns alternate is not checked.

    Args:
        raw: the row.
        columns: its keys by their meaning as the user named them; empty to recognize them.
        may_ask: whether a row may consist of a prompt without an answer, which the model is to write.
    """
    try:
        return _read(raw, columns, may_ask)
    except _Unusable as problem:
        return RowProblem(raw.file, raw.place, problem.kind, problem.what, problem.remedy)


def used_keys(raw: RawRow, columns: Mapping[str, str]) -> frozenset[str]:
    """Return the keys of a row that are read; empty for rows without keys and rows that cannot be read."""
    if not isinstance(raw.value, dict):
        return frozenset()
    try:
        return frozenset(columns.values() or known_columns(raw.value).values())
    except ValueError:
        return frozenset()


def _read(raw: RawRow, columns: Mapping[str, str], may_ask: bool) -> Row:
    value = raw.value
    if isinstance(value, str):
        return _row(raw, "text", text=_whole("", value))
    if isinstance(value, list):
        kind, turns = _messages("", value)
        return _row(raw, kind, turns)
    found = dict(columns) or _known(value)
    missing = [key for key in found.values() if key not in value]
    if columns and missing and not (set(found) - {"system"}) & {name for name, key in found.items() if key in value}:
        raise _Unusable("keys", f"has no key {listed(missing)}, only {_keys(value)}", "Correct text_columns.")
    system = _text(value, found.get("system"))
    before = (Turn("system", system),) if system else ()
    if "messages" in found and value.get(found["messages"]) not in (None, ""):
        kind, turns = _messages(found["messages"], value[found["messages"]])
        has_own = turns[:1] and turns[0].role == "system"
        return _row(raw, kind, turns if has_own else (*before, *turns))
    prompt_key = found.get("instruction") or found.get("prompt")
    if prompt_key is not None and ("answer" in found or may_ask):
        kind = "alpaca" if "instruction" in found else "prompt_completion"
        before = (*before, *_history(value, found.get("history")))
        if isinstance(value.get(prompt_key), list):
            answer = value.get(found["answer"]) if "answer" in found else []
            turns = _messages(prompt_key, value[prompt_key])[1]
            return _row(raw, kind, (*before, *turns, *_messages(found.get("answer", ""), answer)[1]))
        if columns and found.get("answer") is not None and found["answer"] not in value:
            raise _Unusable("keys", f"has no key {found['answer']}, only {_keys(value)}", "Correct text_columns.")
        about = _text(value, found.get("input"))
        prompt = "\n\n".join(part for part in (_text(value, prompt_key), about) if part)
        asked = (*before, Turn("user", prompt))
        if "answer" not in found:
            return _row(raw, kind, asked)
        return _row(raw, kind, (*asked, Turn("assistant", _text(value, found["answer"]))))
    if "text" in found and prompt_key is None:
        return _row(raw, "text", text=_text(value, found["text"]))
    raise _unknown(value, found, prompt_key)


def _known(value: Mapping[str, Any]) -> dict[str, str]:
    try:
        return known_columns(value)
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        raise _Unusable("keys", what, f"{remedy[:1].upper()}{remedy[1:]}.") from None


def _unknown(value: Mapping[str, Any], found: Mapping[str, str], prompt_key: str | None) -> _Unusable:
    if prompt_key is not None:
        near = [key for key in value if key not in found.values() and nearest_names(key, KNOWN["answer"], cutoff=0.75)]
        hint = f"Is {near[0]!r} misspelled? Rename it" if near else "Add one, or name its key in text_columns"
        return _Unusable("keys", f"has a prompt ({prompt_key}) and no answer, only {_keys(value)}", f"{hint}.")
    if "answer" in found:
        answer = found["answer"]
        remedy = f"Add one, or set text_columns to text={answer} to train it without a prompt."
        return _Unusable("keys", f"has an answer ({answer}) and no prompt, only {_keys(value)}", remedy)
    what = f"has no key that is known, only {_keys(value)}"
    return _Unusable("keys", what, f"Rename the keys, {EXAMPLE}, or set text_columns, such as prompt=…, answer=…")


def _keys(value: Mapping[str, Any]) -> str:
    return listed([str(key) for key in value]) or "no keys at all"


def _row(raw: RawRow, kind: RowKind, turns: Sequence[Turn] = (), text: str = "") -> Row:
    return Row(raw.name, kind, tuple(Turn(turn.role, _tidy(turn.text)) for turn in turns), _tidy(text))


def _tidy(text: str) -> str:
    """Return a text with \\n as line ends, without a byte-order mark, null characters and white space around it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").replace("\ufeff", "")
    return text.strip()


def _text(value: Mapping[str, Any], key: str | None) -> str:
    """Return the text under a key, "" if it is missing or null."""
    found = None if key is None else value.get(key)
    return "" if found is None else _as_text(str(key), found)


def _as_text(key: str, value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, dict) and "type" in one for one in value):
        others = [str(one["type"]) for one in value if one["type"] != "text"]
        if others:
            what = f"has a part of type {others[0]} under {key}, and only texts are trained"
            raise _Unusable("no_text", what, "Take it out.")
        return "\n".join(_as_text(key, one.get("text", "")) for one in value)
    if not isinstance(value, str):
        shown = json.dumps(value, ensure_ascii=False, default=str)
        kind = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
        what = f"has {kind.get(type(value), 'no text')} under {key} ({shown[:60]}), where a text is expected"
        raise _Unusable("type", what, f'Write it in quotation marks, such as "{key}": "…".')
    return _whole(key, value)


def _whole(key: str, text: str) -> str:
    """Return a text, unless an escape in it such as \\ud83d stands for half of a character, which is no text."""
    if half := _HALVES.search(text):
        where = f" under {key}" if key else ""
        what = f"has {ascii(half[0])[1:-1]}{where}, which is half of a character, after {text[: half.start()][-20:]!r}"
        raise _Unusable("half", what, "Delete it, or write the whole character. Programs that cut texts leave halves.")
    return text


def _history(value: Mapping[str, Any], key: str | None) -> list[Turn]:
    turns = []
    for pair in (value.get(key) or []) if key is not None else []:
        if not isinstance(pair, list) or len(pair) != 2:
            what = (
                f"has {json.dumps(pair, default=str)[:60]} under {key}, where pairs of prompt and answer are expected"
            )
            raise _Unusable("type", what, 'Write it like [["hello", "hi"]].')
        turns += [Turn("user", _as_text(str(key), pair[0])), Turn("assistant", _as_text(str(key), pair[1]))]
    return turns


def _messages(key: str, value: Any) -> tuple[RowKind, tuple[Turn, ...]]:
    """Return a list of messages, or its JSON text in a table, as turns with the layout."""
    where = f" under {key}" if key else ""
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        shown = json.dumps(value, ensure_ascii=False, default=str)[:60]
        what = f"has {shown}{where}, where a list of messages is expected"
        raise _Unusable("type", what, 'Write it like [{"role": "user", "content": "…"}, …].')
    kind: RowKind = "sharegpt" if any("from" in one for one in value) else "messages"
    role_key, text_key = ("from", "value") if kind == "sharegpt" else ("role", "content")
    return kind, tuple(_turn(number, one, role_key, text_key) for number, one in enumerate(value, start=1))


def _parsed(text: str) -> Any:
    """Return what a cell of a table holds, as JSON or in the way that Python prints lists."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _turn(number: int, message: Mapping[str, Any], role_key: str, text_key: str) -> Turn:
    written = message.get(role_key)
    role = ROLES.get(written.strip().lower()) if isinstance(written, str) else None
    if role is None:
        if written in TOOLS:
            what = f"has a message of the role {written} (message {number}), and calls of tools are not trained"
            raise _Unusable("role", what, "Take the row out.")
        said = f"{role_key}: {written!r}" if role_key in message else f"no {role_key}, only {_keys(message)}"
        near = nearest_names(str(written), ROLES, cutoff=0.6)
        remedy = f"Write {ROLES[near[0]] if near else 'system, user or assistant'}."
        raise _Unusable("role", f"has {said} in message {number}, which is no role that is known", remedy)
    if message.get("tool_calls"):
        what = f"has a call of a tool in message {number}, and these are not trained"
        raise _Unusable("role", what, "Take the row out.")
    for name, off in NOT_TRAINED.items():
        if role == "assistant" and name in message and message[name] == off:
            what = f"has {json.dumps(off)} under {name} in message {number}, and all answers of a row are trained"
            raise _Unusable("weight", what, f"End the row before that message, or take {name} out to train it.")
    if text_key not in message:
        remedy = f"Write the text of the message under {text_key}."
        raise _Unusable("keys", f"has no {text_key} in message {number}, only {_keys(message)}", remedy)
    content = message[text_key]
    return Turn(role, "" if content is None else _as_text(f"{text_key} of message {number}", content))
