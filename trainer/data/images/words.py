"""Words that captions are judged by."""

from __future__ import annotations

import re

EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of in on at by with and or to from is are this that it its there image picture photo photograph "
        "painting drawing illustration art artwork render sketch style view shot beautiful nice very some",
    )
)
"""Words that occur in the captions of any image and say nothing about it."""

VIEWS = ("front", "side", "back", "half body", "full body", "close-up", "portrait")
"""Words in captions that say how a character is seen."""
