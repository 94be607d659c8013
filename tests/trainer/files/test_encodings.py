"""Texts in old encodings are read right where they tell which it is, and a guess is always said."""

from __future__ import annotations

import pytest
from lora_crucible.files.encodings import NAMES, decoded

TEXTS = {
    "cp932": ["黒い猫が窓の外を見ている", "笑顔の女性, ロングヘア", "ひまわり畑", "制服を着た生徒"],
    "cp949": ["창가에 앉은 검은 고양이", "웃는 여자, 긴 머리", "해바라기밭과 푸른 하늘"],
    "big5": ["窗邊的黑貓", "微笑的女人，長頭髮", "向日葵田與藍天"],
    "gb18030": ["窗边的黑猫", "微笑的女人，长头发", "向日葵田与蓝天", "穿校服的学生, 教室"],
    "cp1251": ["чёрная кошка у окна", "Улыбающаяся женщина, длинные волосы", "ПОЛЕ подсолнухов"],  # noqa: RUF001
    "cp1252": ["un garçon près de la forêt", "Frau mit Löwenmähne", "the dog’s bowl", "año nuevo"],  # noqa: RUF001
}


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts])
def test_old_encodings(encoding: str, text: str) -> None:
    assert decoded(text.encode(encoding)) == (text, f"read as {NAMES[encoding]}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_nothing_is_guessed_where_the_file_says_it(encoding: str) -> None:
    assert decoded("黒い猫 чёрная".encode(encoding)) == ("黒い猫 чёрная", "")


def test_utf_8_with_a_stray_byte_stays_utf_8() -> None:
    content = "près du château, l".encode() + b"\x92" + "été à la mer".encode()
    text, guess = decoded(content) or ("", "")
    assert text == "près du château, l’été à la mer"  # noqa: RUF001
    assert "UTF-8 with other bytes in between" in guess


def test_what_is_no_text() -> None:
    assert decoded(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81\xff\xff") is None
