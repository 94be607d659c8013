"""An option that there is not is answered with the nearest one that there is."""

from __future__ import annotations

import argparse
from typing import Any

from ..messages.suggestions import nearest_names

UNKNOWN = "unrecognized arguments: "
"""How argparse starts its message about options that it does not know."""


class NearestOptionParser(argparse.ArgumentParser):
    """A parser of commands whose error about an unknown option names the nearest option of the command."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments as argparse does."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"{UNKNOWN}{' '.join(unknown)}{self._nearest(unknown, getattr(options, 'name', ''))}")
        return options

    def _nearest(self, unknown: list[str], command: str) -> str:
        known: list[str] = []
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and command in action.choices:
                known = [name for name in action.choices[command]._option_string_actions if name.startswith("--")]
        near = {one: nearest_names(one.partition("=")[0], known) for one in unknown if one.startswith("--")}
        told = [f"did you mean {names[0]} instead of {one.partition('=')[0]}?" for one, names in near.items() if names]
        return f" ({' '.join(told)})" if told else ""
