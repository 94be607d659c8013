"""Which keys of a row hold its prompt, its answer, its text or its messages."""

from __future__ import annotations

from collections.abc import Collection

from ...errors import CrucibleError
from ...messages.suggestions import nearest_names
from ...messages.wording import listed

MEANINGS = ("system", "prompt", "answer", "text", "messages")
"""What a column can be named as, on the left in the setting text_columns."""

KNOWN: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "chat"),
    "prompt": ("prompt", "question", "query", "user", "human", "问题", "問題", "提问", "source", "request"),
    "answer": (
        "answer", "completion", "response", "reply", "output", "assistant", "target", "答案", "回答", "responses",
    ),
    "text": ("text", "content", "document", "caption"),
    "system": ("system", "system_prompt"),
}  # fmt: skip
"""Keys in lower case that say themselves what they hold."""

INPUTS = ("input", "context")
"""Keys of what an Alpaca instruction is about; without an instruction, they are the prompt."""

PREFERENCE = ("chosen", "rejected")


def read_columns(text: str) -> dict[str, str]:
    """Read the setting text_columns, such as "prompt=question, answer=reply", as keys by their meaning.

    Raises:
        CrucibleError: it is not written like that, or names a meaning that does not exist.
    """
    columns = {}
    for part in filter(str.strip, text.split(",")):
        meaning, equals, key = (one.strip() for one in part.partition("="))
        if not equals or not key:
            raise CrucibleError(
                f"text_columns has the part {part.strip()!r}, which names no key, so it is not known what to train. "
                "Write it as in: prompt=question, answer=reply"
            )
        if meaning.lower() not in MEANINGS:
            near = nearest_names(meaning, MEANINGS)
            raise CrucibleError(
                f"text_columns has {meaning!r} on the left, which is none of {', '.join(MEANINGS)}, so it is not known "
                f"what the key {key!r} holds. Write {near[0] if near else 'prompt'}={key}, for example."
            )
        columns[meaning.lower()] = key
    if "answer" in columns and "prompt" not in columns:
        raise CrucibleError(
            f"text_columns names the answer ({columns['answer']}) but no prompt, so nothing would ask for it. Add "
            "prompt=…, or write text=… to train it without a prompt."
        )
    return columns


def known_columns(keys: Collection[str]) -> dict[str, str]:
    """Return the keys of a row by their meaning, also `instruction` and `input`, as far as they are known.

    Raises:
        ValueError: several keys come into question, or the row consists of preferences; the message is a clause about
            the row with its remedy.
    """
    plain = {key.strip().lower(): key for key in keys}
    found = {}
    if all(key in plain for key in PREFERENCE):
        raise ValueError(
            "has a chosen and a rejected answer, which are for training of preferences; to train the chosen ones, set "
            "text_columns to prompt=prompt, answer=chosen"
        )
    for meaning, names in KNOWN.items():
        those = [plain[name] for name in names if name in plain]
        if len(those) > 1 and meaning in ("prompt", "answer"):
            raise ValueError(
                f"has several keys that may hold the {meaning} ({listed(those)}); say which in text_columns, such as "
                "prompt=…, answer=…"
            )
        if those:
            found[meaning] = those[0]
    if "instruction" in plain:
        found["instruction"] = plain["instruction"]
    about = next((plain[name] for name in INPUTS if name in plain), None)
    if about is not None and "instruction" not in found and "prompt" not in found and "answer" in found:
        found["prompt"] = about
    elif about is not None and ("instruction" in found or "prompt" in found):
        found["input"] = about
    if "history" in plain:
        found["history"] = plain["history"]
    return found
