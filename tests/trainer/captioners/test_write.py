"""Tests that captions on disk are read back as they were written, and that nothing is lost."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from lora_crucible.captioners.write import check_writable, write_metadata, write_sidecars
from lora_crucible.data.images.captions import find_captions
from lora_crucible.data.images.scan import FoundImage
from lora_crucible.demo import DATASET_DIR
from lora_crucible.errors import CrucibleError


def read_caption(path: Path) -> str:
    (caption,) = find_captions(FoundImage(path, path.name), "auto").captions
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
    assert write_metadata(path, {tmp_path / "a.png": 'a "big", cat', tmp_path / "sub" / "猫.png": "一只猫"})
    assert rows(path) == [["file_name", "text"], ["a.png", 'a "big", cat'], ["sub/猫.png", "一只猫"]]
    assert not write_metadata(path, {tmp_path / "a.png": 'a "big", cat'})
    assert names(tmp_path) == ["metadata.csv"]


def test_metadata_keeps_the_rows_of_other_images_and_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes("\ufefffile_name,prompt\nother.png,mine\na.png,old\n".encode())
    write_metadata(path, {tmp_path / "a.png": "new"})
    assert rows(path) == [["file_name", "text"], ["other.png", "mine"], ["a.png", "new"]]
    assert "old" in (tmp_path / "metadata.csv.bak").read_text(encoding="utf-8-sig")


def test_a_table_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("date,price\n1,2\n")
    with pytest.raises(CrucibleError, match=r"metadata\.csv already exists.*file_name.*Move it away"):
        write_metadata(path, {tmp_path / "a.png": "new"})
    assert path.read_text() == "date,price\n1,2\n"


def test_a_table_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "new" / "captions.csv"
    write_metadata(path, {tmp_path / "images" / "a.png": "a cat"})
    assert rows(path)[1] == ["../images/a.png", "a cat"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CrucibleError, match=r"a\.txt cannot be written \(No space left on device\).*disk"):
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
