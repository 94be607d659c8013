"""Reading of text in all encodings that common editors write, and writing of any text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import CrucibleError
from .encodings import decoded


@dataclass(frozen=True)
class FileText:
    """The text of a file, with \\n as line ends.

    Attributes:
        text: the text.
        guess: what was guessed about its encoding, as a phrase such as "read as Japanese (Shift-JIS)"; "" for UTF-8 and
            for files that say their encoding.
    """

    text: str
    guess: str


def read_text(path: Path) -> str:
    """Read a text file of any encoding that `read_file_text` knows.

    Raises:
        CrucibleError: the file cannot be opened, or is not text in any of these encodings.
    """
    return read_file_text(path).text


def read_file_text(path: Path) -> FileText:
    """Read a text file in UTF-8, UTF-16 or UTF-32, or in an old encoding of European or East Asian languages.

    Raises:
        CrucibleError: the file cannot be opened, or is not text in any of these encodings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CrucibleError(
            f"{path} cannot be read ({error.strerror or error}). Check that it exists and that you may open it."
        ) from error
    found = decoded(content)
    if found is None:
        raise CrucibleError(
            f"{path} is not a text file in any supported encoding, so its text cannot be read. Open it in a text "
            "editor and save it as UTF-8."
        )
    text, guess = found
    return FileText(text.replace("\r\n", "\n").replace("\r", "\n"), guess)


def encoded(text: str) -> bytes:
    """Encode a text as UTF-8, with an escape such as \\udce9 for what UTF-8 lacks.

    Python represents a byte of a file name that is not UTF-8, and half an emoji from a JSON file, as a lone surrogate,
    which UTF-8 lacks. In JSON, the escape is read back as the same character.
    """
    return text.encode("utf-8", "backslashreplace")


def portable(text: str) -> str:
    """Return a text with an escape such as \\udce9 for what UTF-8 lacks, as `encoded` writes it."""
    return encoded(text).decode("utf-8")
