"""The prompts of samples, one per line."""

from __future__ import annotations

import re

_OPTION = re.compile(r"(?:^|\s)(--[a-z][\w-]*)")
_FILE = re.compile(r"\S.*\.(txt|toml|json|jsonl|ya?ml|csv)", re.IGNORECASE)

INSTEAD = {
    "--n": "sample_negative_prompt",
    "--negative_prompt": "sample_negative_prompt",
    "--w": "resolution",
    "--h": "resolution",
    "--d": "seed",
    "--seed": "seed",
    "--s": "sample_steps",
    "--steps": "sample_steps",
    "--l": "sample_cfg",
    "--ss": "sample_sampler",
}
"""The setting for all samples that takes the place of an option in another program's prompt."""


def read_prompts(text: str) -> list[str]:
    """Return the prompts in a text, one per line, without empty lines and comments, which start with #."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def comments(text: str) -> list[str]:
    """Return the lines that are not prompts but comments."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


def problems_of_prompts(text: str) -> list[str]:
    """Return what in the prompts is meant for another program, and would be drawn as words here."""
    problems = []
    for prompt in read_prompts(text):
        options = list(dict.fromkeys(_OPTION.findall(prompt)))
        if options:
            settings = list(dict.fromkeys(INSTEAD[option] for option in options if option in INSTEAD))
            instead = f"set {' and '.join(settings)} for all samples, and " if settings else ""
            problems.append(
                f'the prompt "{prompt}" has the option{"s" * (len(options) > 1)} {", ".join(options)} of another '
                f"program, which would be drawn as words; {instead}keep only the words of the prompt"
            )
        elif _FILE.fullmatch(prompt):
            problems.append(
                f'"{prompt}" is the name of a file, which would be drawn as words; write the prompts themselves, one '
                "per line"
            )
    return problems
