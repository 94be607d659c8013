"""Tests that captions on disk are read back as they were written, and that nothing is lost."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from lora_crucible.captioners.options import CaptionOptions
from lora_crucible.captioners.run import Picture
from lora_crucible.captioners.tables import open_table
from lora_crucible.captioners.write import check_writable, without_shared, write_sidecars, write_table
from lora_crucible.data.images.captions import find_captions
from lora_crucible.data.images.metadata_files import read_metadata
from lora_crucible.data.images.scan import FoundImage
from lora_crucible.data.images.sidecars import caption_files
from lora_crucible.demo import DATASET_DIR
from lora_crucible.errors import CrucibleError


def read_caption(path: Path) -> str:
    image = FoundImage(path, path.name, texts=caption_files([path])[path])
    (caption,) = find_captions(image, "auto").captions
    return caption


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_sidecars_are_read_back(tmp_path: Path) -> None:
    captions = {tmp_path / "a.png": "a cat", tmp_path / "猫 b.jpg": '一只猫, "quoted"'}
    assert write_sidecars(captions) == [tmp_path / "a.txt", tmp_path / "猫 b.txt"]
    for image, caption in captions.items():
        assert read_caption(image) == caption
    assert names(tmp_path) == ["a.txt", "猫 b.txt"]


def test_every_replaced_file_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe mine, with \xe9")
    write_sidecars({image: "first"})
    write_sidecars({image: "second"})
    write_sidecars({image: "third"})
    assert (tmp_path / "a.txt.bak").read_bytes() == b"\xff\xfe mine, with \xe9"
    assert (tmp_path / "a.txt.bak2").read_text() == "first\n"
    assert (tmp_path / "a.txt.bak3").read_text() == "second\n"
    assert read_caption(image) == "third"


def test_a_file_that_would_not_change_is_left_alone(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    write_sidecars({image: "a cat"})
    before = (tmp_path / "a.txt").stat().st_mtime_ns
    assert write_sidecars({image: "a cat"}) == []
    assert (tmp_path / "a.txt").stat().st_mtime_ns == before
    assert names(tmp_path) == ["a.txt"]


def test_the_file_that_is_read_is_the_one_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.TXT").write_text("old")
    write_sidecars({tmp_path / "a.png": "new"})
    assert read_caption(tmp_path / "a.png") == "new"
    assert len([name for name in names(tmp_path) if name.lower() == "a.txt"]) == 1


def test_metadata(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    assert write_table(path, {tmp_path / "a.png": 'a "big", cat', tmp_path / "sub" / "猫.png": "一只猫"}, [])
    assert rows(path) == [["file_name", "text"], ["a.png", 'a "big", cat'], ["sub/猫.png", "一只猫"]]
    assert not write_table(path, {tmp_path / "a.png": 'a "big", cat'}, [tmp_path / "a.png"])
    assert names(tmp_path) == ["metadata.csv"]


def test_metadata_keeps_the_rows_of_other_images_and_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes("\ufefffile_name,prompt\nother.png,mine\na.png,old\n".encode())
    write_table(path, {tmp_path / "a.png": "new"}, [tmp_path / "a.png"])
    assert rows(path) == [["file_name", "prompt"], ["other.png", "mine"], ["a.png", "new"]]
    assert "old" in (tmp_path / "metadata.csv.bak").read_text(encoding="utf-8-sig")


def test_a_table_keeps_its_form_its_columns_and_further_captions(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("rating;image;caption\ngood;./a.png;first\ngood;a.png;second\nbad;b.png;mine\n")
    images = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    captions = dict(zip(images, ("new", "mine", 'a "new"; one'), strict=True))
    assert write_table(path, captions, [images[0], images[2]])
    assert path.read_text() == (
        'rating;image;caption\ngood;./a.png;new\ngood;a.png;second\nbad;b.png;mine\n;c.png;"a ""new""; one"\n'
    )
    assert read_metadata(path).of("a.png") == ("new", "second")


def test_json_lines_are_written_and_changed_as_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    images = [tmp_path / "a.png", tmp_path / "猫.png"]
    assert write_table(path, {images[0]: 'a "cat"\u2028here', images[1]: "一只猫"}, [])
    assert read_metadata(path).of("猫.png") == ("一只猫",)
    more = path.read_text(encoding="utf-8") + 'not json\n{"file_name": "b.png", "text": ["b", "c"], "size": 3}\n'
    path.write_text(more, encoding="utf-8")
    assert write_table(path, {tmp_path / "b.png": "new"}, [tmp_path / "b.png"])
    assert path.read_text(encoding="utf-8").split("\n")[2:] == [
        "not json",
        '{"file_name": "b.png", "text": ["new", "c"], "size": 3}',
        "",
    ]


@pytest.mark.parametrize("name", ["captions.txt", "captions", "captions.json"])
def test_a_table_in_an_unknown_form_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CrucibleError, match=rf"{name}.*does not say in which form.*\.csv, \.tsv, \.jsonl"):
        open_table(tmp_path / name)


def test_a_table_that_is_not_closed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text('file_name,text\na.png,"open\nb.png,mine\n')
    with pytest.raises(CrucibleError, match=r"metadata\.csv already exists and is not a valid table"):
        open_table(path)


def test_a_name_that_is_no_utf_8_is_found_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    for table in (tmp_path / "metadata.csv", tmp_path / "metadata.jsonl"):
        write_table(table, {tmp_path / name: "a cup"}, [])
        table.read_text(encoding="utf-8")
        assert read_metadata(table).of(name) == ("a cup",)
        assert not write_table(table, {tmp_path / name: "a cup"}, [])


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    image = tmp_path / ("é" * 125 + "x.png")
    write_sidecars({image: "first"})
    write_sidecars({image: "second"})
    assert image.with_suffix(".txt").read_text() == "second\n"
    (kept,) = tmp_path.glob("*.bak")
    assert kept.read_text() == "first\n"


def test_images_that_would_share_a_caption_file_are_named(tmp_path: Path) -> None:
    pictures = [Picture(name, tmp_path / name) for name in ("a.jpg", "a.png", "b.png")]
    alone, problems = without_shared(pictures, CaptionOptions())
    assert [picture.name for picture in alone] == ["b.png"]
    assert problems[0].startswith("a.jpg: its caption file would also be that of a.png; rename one of them")
    kept = [replace(picture, caption="mine") for picture in pictures]
    assert without_shared(kept, CaptionOptions()) == (kept, [])


def test_a_table_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("date,price\n1,2\n")
    with pytest.raises(CrucibleError, match=r"metadata\.csv already exists.*file_name.*Move it away"):
        write_table(path, {tmp_path / "a.png": "new"}, [tmp_path / "a.png"])
    assert path.read_text() == "date,price\n1,2\n"


def test_a_table_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "new" / "captions.csv"
    write_table(path, {tmp_path / "images" / "a.png": "a cat"}, [])
    assert rows(path)[1] == ["../images/a.png", "a cat"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CrucibleError, match=r"could not be saved to .*a\.txt.*disk is full"):
        write_sidecars({tmp_path / "a.png": "new"})
    assert (tmp_path / "a.txt").read_text() == "old"
    assert not [name for name in names(tmp_path) if "tmp" in name]


def test_the_packages_own_captions_are_not_touched() -> None:
    with pytest.raises(CrucibleError, match=r"demo dataset.*cannot be replaced.*folder of your own"):
        check_writable(DATASET_DIR)


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(CrucibleError, match=r"cannot be written to.*write nothing"):
        check_writable(tmp_path)
