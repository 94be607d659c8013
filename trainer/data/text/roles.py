"""The order of turns in a conversation: a system text if any, then prompts and answers by turns."""

from __future__ import annotations

from collections.abc import Sequence

from .raw_rows import RowProblem
from .rows import Row, Turn


def order_problem(turns: Sequence[Turn], *, may_ask: bool = False) -> str:
    """Return what is wrong with the order of turns, as a clause that follows the row's name, or "".

    Args:
        turns: the turns of a conversation.
        may_ask: whether the conversation may end with a prompt, which the model is to answer.
    """
    rest = turns[1:] if turns and turns[0].role == "system" else turns
    for number, turn in enumerate(rest, start=1 + len(turns) - len(rest)):
        expected = "user" if (number - (len(turns) - len(rest))) % 2 else "assistant"
        if turn.role != expected:
            after = f"after that of the {turns[number - 2].role}" if number > 1 else "at the beginning"
            return f"has a message of the {turn.role} (message {number}) {after}, where one of the {expected} is due"
    if not rest:
        return "has no prompt and no answer"
    if rest[-1].role != "assistant" and not may_ask:
        return "ends with a message of the user, so there is no answer to train"
    return ""


def role_problem(row: Row, *, may_ask: bool = False) -> RowProblem | None:
    """Return the problem of a row whose roles do not alternate or that does not end with an answer."""
    what = order_problem(row.turns, may_ask=may_ask) if row.turns or not row.text else ""
    if row.kind == "text" and not row.turns:
        return None
    file, _, place = row.name.rpartition(", ")
    remedy = "Prompts and answers must take turns, because chat templates write them so. Mend the row."
    return RowProblem(file, place, "role_order", what, remedy) if what else None


def is_empty(row: Row, *, may_ask: bool = False) -> bool:
    """Return whether there is nothing to train in a row: no text, or no last answer."""
    if not row.turns:
        return not row.text.strip()
    if may_ask and row.turns[-1].role == "user":
        return not row.turns[-1].text.strip()
    return row.turns[-1].role == "assistant" and not row.turns[-1].text.strip()
