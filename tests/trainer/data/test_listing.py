"""A folder is listed with its subfolders, whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lora_crucible.data import listing
from lora_crucible.data.listing import list_folder, signature


def test_everything_has_its_place(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", ".hidden", "sub/c.png", "sub/deep/d.png", "__MACOSX/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to("/nowhere")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "sub/up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    root = list_folder(tmp_path)
    assert [path.name for path in root.files] == ["a.png", "b.png"]
    assert [path.name for path in root.broken] == ["gone.png", "itself.png"]
    assert [path.name for path in root.special] == ["pipe"]
    assert [one.name for one in root.walk()] == ["", "sub", "sub/deep"]
    assert root.folders[0].named(root.folders[0].files[0]) == "sub/c.png"


def test_a_large_tree_is_not_listed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").touch()
    monkeypatch.setattr(listing, "MOST_LISTED", 5)
    assert [len(one.files) for one in list_folder(tmp_path).folders] == [1, 0, 0, 0]
    assert [one.folders for one in list_folder(tmp_path, depth=0).folders] == [()] * 4


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: Path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list_folder(tmp_path).folders[0].problem == "Permission denied"
    with pytest.raises(OSError, match="No such file"):
        list_folder(tmp_path / "missing")


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).write_bytes(b"x")


def test_a_signature_follows_all_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.txt", "log.md")
    seen = [signature(tmp_path)]
    assert signature(tmp_path) == seen[0]
    touch(tmp_path, ".hidden")
    assert signature(tmp_path) == seen[0]

    (tmp_path / "a.txt").write_bytes(b"longer")
    seen.append(signature(tmp_path))
    os.utime(tmp_path / "a.png", ns=(1, 1))
    seen.append(signature(tmp_path))
    touch(tmp_path, "B.PNG")
    seen.append(signature(tmp_path))
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    seen.append(signature(tmp_path))
    assert len(set(seen)) == len(seen)
    assert signature(tmp_path / "missing")


def test_a_file_alone_has_a_signature(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    seen = [signature(file)]
    (tmp_path / "other.jsonl").write_text("two")
    assert signature(str(file)) == seen[0]
    file.write_text("three")
    assert signature(file) != seen[0]
