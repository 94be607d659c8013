"""The lines of a shell script, batch file or PowerShell script that run, with their variables filled in.

Only what scripts that start a training usually have is followed: variables, lists of options, and conditions on
variables. Nothing is ever run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\n[ \t]*")
"""A line that goes on in the next one: in a shell, in a batch file, or in PowerShell."""

_COMMENT = re.compile(r"^\s*(#|::|rem\s|echo\b|@echo\b|print)", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"^(?:export\s+|local\s+(?:-a\s+)?|set\s+\"?|\[.*?\])?\$?(?:env:)?([A-Za-z_]\w*)\s*=\s*"
    r"(\"[^\"]*\"|'[^']*'|\$\(.*\)|[^\s#\"']*)\"?\s*(?:#.*|\|.*)?$",
    re.IGNORECASE,
)
_LIST = re.compile(r"^\s*(?:local\s+-a\s+)?([A-Za-z_]\w*)(\+?)=\((.*)\)\s*(?:#.*)?$", re.DOTALL)
_ADDED = re.compile(r"^(?:\[void\])?\$(\w+)\.Add\((.*)\)$", re.IGNORECASE)
_ARITHMETIC = re.compile(r"^set\s+/a\s+\"?(\w+)=(\d+|%\w+%)\s*([*/+-])\s*(\d+|%\w+%)", re.IGNORECASE)
_IF = re.compile(r"^(if|elif|elseif)\s*(.*?)\s*(?:\{|then)?$", re.IGNORECASE | re.DOTALL)
_BATCH_IF = re.compile(r"^if\s+(?![\[(])(?:/i\s+)?(not\s+)?\"?([^\"=]*)\"?==\"?([^\"\s]*)\"?\s+(.+)$", re.IGNORECASE)
_VARIABLE = re.compile(
    r"\"?\$\{([A-Za-z_]\w*)\[@\]\}\"?|\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}|\$(?:env:)?([A-Za-z_]\w*)|%([A-Za-z_]\w*)%",
    re.I,
)


@dataclass
class Script:
    """What is known while a script is read.

    Attributes:
        variables: the value of each variable.
        lists: the words of each list of options.
        changed: the variables that got a second, other value.
        unknown: the options behind conditions that cannot be decided here, which are left out.
    """

    variables: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def lines(self, text: str) -> Iterator[str]:
        """Yield each line that runs and is more than an assignment, with its variables filled in."""
        branches: list[bool | None] = []
        taken: list[bool] = []
        closed: bool | None = None
        for line in _statements(text):
            if found := _BATCH_IF.match(line):
                same = self.filled(found[2]).strip() == self.filled(found[3]).strip()
                if same == bool(found[1]) or "%" in self.filled(found[2] + found[3]):
                    self.unknown += re.findall(r"--\w+", found[4]) if "%" in self.filled(found[2] + found[3]) else []
                    continue
                line = found[4]
            word = line.split(maxsplit=1)[0].lower().rstrip("{") if line.split() else ""
            if closed is not None and word.startswith("else") and line.endswith("{"):  # PowerShell closes each branch
                branches.append(False)
                taken.append(closed)
            closed = None
            if word in ("if", "elif", "elseif") and (found := _IF.match(line)):
                holds = self._holds(found[2])
                if word == "if":
                    branches.append(holds)
                    taken.append(holds is True)
                elif branches:
                    branches[-1] = False if taken[-1] else holds
                    taken[-1] = taken[-1] or holds is True
            elif word == "else" and branches:
                branches[-1] = None if branches[-1] is None else not taken[-1]
            elif word in ("fi", "}") and branches:
                branches.pop()
                closed = taken.pop()
            elif False in branches:
                continue
            elif None in branches:
                self.unknown += re.findall(r"(?<![\w-])--[A-Za-z]\w*", line)
            elif not self._assigned(line):
                yield self.filled(line)

    def filled(self, text: str) -> str:
        """Return a text with the variables that are known."""

        def value(match: re.Match[str]) -> str:
            if match[1] or match[4] in self.lists:
                words = self.lists.get(match[1] or match[4])
                return match[0] if words is None else " ".join(words)
            return self.variables.get(match[2] or match[4] or match[5], match[3] if match[3] is not None else match[0])

        return _VARIABLE.sub(value, text)

    def unset_in(self, text: str) -> list[str]:
        """Return the variables in a text that are not known."""
        return [match[0] for match in _VARIABLE.finditer(text)]

    def _assigned(self, line: str) -> bool:
        """Take up an assignment, and return whether the line is one."""
        if found := _LIST.match(line):
            words = [self.filled(word) for word in re.findall(r"\"[^\"]*\"|'[^']*'|[^\s\"']+", found[3])]
            plain = [word.strip("\"'") if word[1:3] == "--" else word for word in words]
            self.lists[found[1]] = [*(self.lists.get(found[1], []) if found[2] else []), *plain]
        elif found := _ADDED.match(line):
            words = [part.strip().strip("\"'") for part in re.split(r"\s\+\s", found[2])]
            self.lists.setdefault(found[1], []).append("".join(map(self.filled, words)))
        elif found := _ARITHMETIC.match(line):
            left, right = self.filled(found[2]), self.filled(found[4])
            if left.isdigit() and right.isdigit() and (int(right) or found[3] != "/"):
                a, b = int(left), int(right)
                self.variables[found[1]] = str({"*": a * b, "/": a // max(b, 1), "+": a + b, "-": a - b}[found[3]])
        elif (found := _ASSIGNED.match(line)) and not found[1].startswith("-"):
            value = self.filled(found[2].strip("\"'"))
            if self.variables.get(found[1], value) != value:
                self.changed.add(found[1])
            if not value.startswith("$("):
                self.variables[found[1]] = value
        else:
            return False
        return True

    def _holds(self, condition: str) -> bool | None:
        """Return whether a condition on variables holds; None if it is about something else."""
        text = condition.strip(" ;[](){")
        parts = re.split(r"\s+(==|=|!=|-eq|-ne)\s+", text, maxsplit=1)
        filled = [self.filled(part).strip(" \"'") for part in parts[::2]]
        if any("$" in part or part.startswith(("-", "!")) or " " in part for part in filled):
            name = re.fullmatch(r"\"?\$\{?(\w+)\}?\"?", text)
            return False if name and name[1] in self.lists else None
        if len(parts) == 1:
            return filled[0] not in ("", "0", "false", "False", text)
        return (filled[0] == filled[1]) == (parts[1] in ("==", "=", "-eq"))


def _statements(text: str) -> Iterator[str]:
    """Yield the statements of a script, one-line conditions taken apart, without comments."""
    joined = re.sub(
        r"=\(\s*\n(.*?)\n\s*\)", lambda match: f"=({' '.join(_uncommented(match[1]))})", text, flags=re.DOTALL
    )
    for line in _CONTINUED.sub(" ", joined).splitlines():
        plain = line.strip()
        if not plain or _COMMENT.match(plain):
            continue
        if re.match(r"(if|elif|then|else)\b", plain) and ";" in plain:
            for part in plain.split(";"):
                yield from filter(None, [re.sub(r"^(then|else)\b\s*(?=\S)", "", part.strip())])
        elif found := re.match(r"\}\s*(else.*)$", plain, re.IGNORECASE):
            yield found[1]
        elif plain != "then":
            yield re.sub(r"^then\s+", "", plain)


def _uncommented(lines: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in lines.splitlines() if not line.lstrip().startswith("#")]
