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
    matched = file.matched_to(["10_cat/a.png", "b.png", "c.png", "caf\u00e9.png"])
    assert (matched.without_image, matched.doubtful) == (("gone.png",), ())


def matched(file: MetadataFile, *names: str) -> dict[str, str]:
    return {name: captions[0] for name, captions in file.matched_to(names).captions.items()}


def test_the_last_part_of_a_path_is_enough_where_there_is_no_doubt(tmp_path: Path) -> None:
    file = read(tmp_path, "C:\\cats\\1.PNG,one\n/content/x/2.png,two\n")
    assert matched(file, "1.png", "10_cat/2.png") == {"1.png": "one", "10_cat/2.png": "two"}


def test_folders_decide_between_images_of_one_name(tmp_path: Path) -> None:
    file = read(tmp_path, "/data/1_a/x.png,of a\n/data/1_b/x.png,of b\n")
    assert matched(file, "1_a/x.png", "1_b/x.png") == {"1_a/x.png": "of a", "1_b/x.png": "of b"}


@pytest.mark.parametrize(
    ("rows", "images"),
    [
        ("x.png,a house\n", ("1_a/x.png", "1_b/x.png")),
        ("train/x.png,a house\ntest/x.png,a tree\n", ("x.png",)),
    ],
    ids=["two images", "two rows"],
)
def test_where_there_is_doubt_nothing_is_matched(tmp_path: Path, rows: str, images: tuple[str, ...]) -> None:
    file = read(tmp_path, rows)
    assert matched(file, *images) == {}
    assert file.matched_to(images).doubtful == tuple(file.captions)


def test_an_image_with_a_row_of_its_own_leaves_other_rows_alone(tmp_path: Path) -> None:
    file = read(tmp_path, "x.png,in the folder\n")
    assert matched(file, "x.png", "10_cat/x.png") == {"x.png": "in the folder"}


def test_the_name_of_the_file_may_be_in_other_case(tmp_path: Path) -> None:
    (tmp_path / "Metadata.CSV").write_text("a.png,a cat")
    assert metadata_files(tmp_path, None) == [tmp_path / "Metadata.CSV"]


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
