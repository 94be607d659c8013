"""Captions are read whatever editor wrote them, and the trigger word is added once."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.captions import find_captions, finished, variants, with_trigger_word
from lora_crucible.data.images.metadata_files import MetadataFile
from lora_crucible.data.images.scan import FoundImage
from lora_crucible.data.images.sidecars import caption_files
from lora_crucible.errors import CrucibleError


def image(path: Path) -> FoundImage:
    return FoundImage(path, path.name, texts=caption_files([path])[path])


def caption_of(folder: Path, content: bytes, name: str = "a.txt") -> str | None:
    (folder / name).write_bytes(content)
    captions = find_captions(image(folder / Path(name).with_suffix(".png")), "auto").captions
    return captions[0] if captions else None


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
    assert find_captions(image(tmp_path / "missing.png"), "auto").captions == ()
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


def test_the_order_of_sources_and_what_was_not_used(tmp_path: Path) -> None:
    picture = image(tmp_path / "a.png")
    metadata = [
        MetadataFile(tmp_path / "metadata.jsonl", {"a.png": ("from jsonl", "another")}, ()),
        MetadataFile(tmp_path / "metadata.csv", {"a.png": ("from txt",)}, ()),
    ]
    found = find_captions(picture, "auto", metadata)
    assert (found.captions, found.source) == (("from jsonl", "another"), "metadata.jsonl")
    assert found.others == ("metadata.csv",)
    (tmp_path / "a.caption").write_text("from caption")
    assert find_captions(image(tmp_path / "a.png"), "auto", metadata).source == "a.caption"
    (tmp_path / "a.txt").write_text("from txt")
    picture = image(tmp_path / "a.png")
    found = find_captions(picture, "auto", metadata)
    assert (found.captions, found.source) == (("from txt",), "a.txt")
    assert found.others == ("a.caption", "metadata.jsonl")  # the csv says the same
    (tmp_path / "a.txt").write_text("\n")
    assert find_captions(picture, "auto", metadata).source == "a.caption"
    assert find_captions(picture, "metadata", metadata).source == "metadata.jsonl"
    assert find_captions(picture, "sidecar", metadata).captions == ("from caption",)


def test_names_as_captions(tmp_path: Path) -> None:
    picture = image(tmp_path / "10_red_panda" / "on_a__branch.png")
    assert find_captions(picture, "file_name").captions == ("on a branch",)
    assert find_captions(picture, "folder_name").captions == ("red panda",)


def test_a_caption_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\r\n\r\n a  dog \na cat")
    assert find_captions(image(tmp_path / "a.png"), "auto", per_line=True).captions == ("a cat", "a dog")
    assert find_captions(image(tmp_path / "a.png"), "auto").captions == ("a cat a dog a cat",)


def test_prefix_suffix_and_trigger_word() -> None:
    settings = DataSettings(trigger_word="sks", caption_prefix="photo of ", caption_suffix=", outdoors")
    assert finished("a cat", settings) == "sks, photo of a cat, outdoors"
    assert finished("a sks cat", settings) == "photo of a sks cat, outdoors"


def test_shuffled_tags_keep_the_first_and_the_trigger_word() -> None:
    settings = DataSettings(trigger_word="sks", shuffle_caption=True, keep_tokens=1)
    caption = "sks, 1girl, red hair, hat, smile, tree"
    found = variants(caption, settings)
    assert len(found) > 3
    assert all(one.startswith("sks, 1girl, ") for one in found)
    assert {frozenset(one.split(", ")) for one in found} == {frozenset(caption.split(", "))}
    assert found == variants(caption, settings)
    assert variants(caption, DataSettings()) == (caption,)
    assert variants("one tag", settings) == ("one tag",)


def test_unless_asked_otherwise_the_first_tag_is_shuffled_too() -> None:
    found = variants("1girl, red hair, hat, smile, tree", DataSettings(shuffle_caption=True))
    assert len({one.split(", ")[0] for one in found}) > 1
    named = variants("sks, red hair, hat, smile, tree", DataSettings(shuffle_caption=True, trigger_word="sks"))
    assert {one.split(", ")[0] for one in named} == {"sks"}
    assert len({one.split(", ")[1] for one in named}) > 1
