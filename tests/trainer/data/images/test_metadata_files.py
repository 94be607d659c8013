"""Captions in CSV and JSON lines files are read as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.data.images.metadata_files import MetadataFile, metadata_files, read_metadata
from lora_crucible.errors import CrucibleError


def read(folder: Path, content: str | bytes, name: str = "metadata.csv") -> MetadataFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_metadata(path)


EXPECTED = {"a.png": ("a cat, sitting",), "b 2.png": ("水墨画",)}


@pytest.mark.parametrize(
    "content",
    [
        'file_name,prompt\na.png,"a cat, sitting"\nb 2.png,水墨画\n',
        'file_name,text\r\na.png,"a cat, sitting"\r\nb 2.png,水墨画\r\n',
        'text,width,file_name\n"a cat, sitting",80,a.png\n水墨画,80,b 2.png',
        'a.png,"a cat, sitting"\nb 2.png,水墨画',
        "a.png, a cat, sitting\n\nb 2.png, 水墨画\n",
        "File_Name;Caption\na.png;a cat, sitting\nb 2.png;水墨画\n".replace(", ", ", "),
        "./a.png\ta cat, sitting\nb 2.png\t水墨画\n".replace(",", ","),
        ("\ufefffile_name,text\n" + 'a.png,"a cat,\nsitting"\nb 2.png,水墨画').encode(),
        'file_name,text\na.png,"a cat, sitting"\nb 2.png,水墨画\n'.encode("gbk"),
    ],
    ids=["prompt", "crlf", "any order", "no header", "unquoted", "semicolons", "tabs", "mark and line end", "gbk"],
)
def test_tables(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content).captions == EXPECTED


def test_json_lines(tmp_path: Path) -> None:
    content = (
        '{"file_name": "a.png", "text": "one"}\n'
        '{"file_name": "a.png", "text": "two"}\n'
        '{"image": "sub\\\\b.png", "prompt": ["three", "four"]}\n'
        "\nnot json\n"
        '{"text": "no name"}\n'
        '{"file_name": "c.png"}\n'
    )
    file = read(tmp_path, content, "metadata.jsonl")
    assert file.captions == {"a.png": ("one", "two"), "sub/b.png": ("three", "four")}
    assert [text.split(":")[0] for text in file.unread] == ["line 5", "line 6", "line 7"]


def test_an_image_is_found_by_path_name_or_stem(tmp_path: Path) -> None:
    file = read(tmp_path, "10_cat/a.png,by path\nb.png,by name\nc,by stem\ncafe\u0301.png,composed\ngone.png,nobody\n")
    assert file.of("10_cat/a.png") == ("by path",)
    assert file.of("10_cat/b.png") == ("by name",)
    assert file.of("c.jpeg") == ("by stem",)
    assert file.of("caf\u00e9.png") == ("composed",)
    assert file.of("other.png") == ()
    assert file.without_image(["10_cat/a.png", "b.png", "c.png", "caf\u00e9.png"]) == ["gone.png"]


def test_a_file_without_captions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CrucibleError, match=r"metadata\.csv names no image with a caption.*file_name,text"):
        read(tmp_path, "\n")
    with pytest.raises(CrucibleError, match="none for the captions"):
        read(tmp_path, "file_name,width\na.png,80\n")


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("a.png,a cat")
    assert metadata_files(tmp_path, "captions.csv") == [tmp_path / "captions.csv"]
    with pytest.raises(CrucibleError, match=r"A similar path exists: .*captions\.csv"):
        metadata_files(tmp_path, "caption.csv")
