"""Captions are read whatever the editor, and the trigger word is put in once."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.data.captions import read_caption, with_trigger_word
from lora_crucible.errors import CrucibleError


def caption_of(folder: Path, content: bytes, name: str = "a.txt") -> str | None:
    (folder / name).write_bytes(content)
    return read_caption(folder / Path(name).with_suffix(".png"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gbk"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    assert caption_of(tmp_path, "ink, 一幅水墨画".encode(encoding)) == "ink, 一幅水墨画"


@pytest.mark.parametrize(
    "text",
    ["café noir", "à la plage, très belle", "ein Mädchen, schön", "der Größe nach", "the cat\u2019s tail"],
)
def test_western_text_that_is_not_utf_8(tmp_path: Path, text: str) -> None:
    assert caption_of(tmp_path, text.encode("cp1252")) == text


@pytest.mark.parametrize("text", ["crux, 山水画, a painting", "crux风格", "漢服", "1girl, 囍, 红色"])
def test_chinese_text_in_gbk(tmp_path: Path, text: str) -> None:
    assert caption_of(tmp_path, text.encode("gbk")) == text


def test_big_endian_utf_16_from_an_old_editor(tmp_path: Path) -> None:
    assert caption_of(tmp_path, b"\xfe\xff" + "a cat".encode("utf-16-be")) == "a cat"


def test_lines_and_spaces_are_folded(tmp_path: Path) -> None:
    assert caption_of(tmp_path, b"  a cat,\r\n\r\n\ton a  mat \r\n") == "a cat, on a mat"


@pytest.mark.parametrize("content", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
def test_an_empty_file_is_no_caption(tmp_path: Path, content: bytes) -> None:
    assert caption_of(tmp_path, content) is None


def test_names_of_caption_files(tmp_path: Path) -> None:
    assert read_caption(tmp_path / "missing.png") is None
    assert caption_of(tmp_path, b"upper", "IMG 1.TXT") == "upper"
    assert caption_of(tmp_path, b"dots", "a.b.txt") == "dots"
    assert caption_of(tmp_path, b"name", "猫 ü.txt") == "name"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(CrucibleError, match=r"a\.txt is not a text file.*save it as UTF-8"):
        caption_of(tmp_path, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81\xff\xff")


@pytest.mark.parametrize(
    ("caption", "trigger_word", "expected"),
    [
        ("a cat", "crux", "crux, a cat"),
        ("crux, a cat", "crux", "crux, a cat"),
        ("a cat in CRUX style", "crux", "a cat in CRUX style"),
        ("a cruxifix", "crux", "crux, a cruxifix"),
        ("который", "кот", "кот, который"),
        ("一张水墨画风的猫", "水墨画风", "一张水墨画风的猫"),
        ("crux风格的猫", "crux", "crux风格的猫"),
        ("a (b) c", "(b)", "a (b) c"),
        ("a red fox in snow", "red fox", "a red fox in snow"),
        ("a cat", "", "a cat"),
        ("", "crux", "crux"),
    ],
)
def test_trigger_word(caption: str, trigger_word: str, expected: str) -> None:
    assert with_trigger_word(caption, trigger_word) == expected
