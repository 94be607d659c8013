"""Names of files and folders that stand in a dataset folder without being part of the dataset."""

from __future__ import annotations

import re
from pathlib import Path

RUBBISH = re.compile(
    r"\..*|~\$.*|.*~|thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|__macosx|@eadir|#recycle|\$recycle\.bin|"
    r"system volume information|lost\+found|__pycache__",
    re.IGNORECASE | re.DOTALL,
)
"""The names of hidden files, and of what operating systems and editors leave in folders."""

ABOUT_THE_FOLDER = re.compile(
    r"(read[ _-]?me|licen[cs]e|copying|copyright|change[ _-]?log|credits|attributions?|notice|authors|citation|"
    r"contributing|requirements|dataset[ _-]?card|dataset[ _-]?infos?|sample[ _-]?prompts?)"
    r"([._ -][a-z]{2}([_-]\w{2,4})?)?",
    re.IGNORECASE,
)
"""The names, without ending, of texts about a folder, which are captions of no image."""

BACK_UP = re.compile(r".*\.bak\d*", re.IGNORECASE | re.DOTALL)


def is_rubbish(name: str) -> bool:
    """Return whether a file or folder of this name is of no concern to anybody."""
    return RUBBISH.fullmatch(name) is not None or BACK_UP.fullmatch(name) is not None


def is_about_the_folder(path: Path) -> bool:
    """Return whether a file is a text about its folder, such as README.txt or LICENSE."""
    return ABOUT_THE_FOLDER.fullmatch(path.stem) is not None
