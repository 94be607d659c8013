"""Tests of which captioners are found, and of the errors for those that are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lora_crucible.captioners.models import (
    KNOWN,
    captioner_choices,
    captioner_names,
    find_captioner,
    known_model,
    not_there,
)


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_known_models_are_pinned_and_of_repositories_without_code() -> None:
    for model in KNOWN:
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision), model
        assert not model.repo.startswith("microsoft/")
    assert len({model.name for model in KNOWN}) == len(KNOWN)


def test_the_list_has_folders_and_downloads_with_their_size(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    make(one / "my blip")
    make(one / "Qwen" / "Qwen3-VL-2B-Instruct")
    make(two / "wd")
    make(one / ".Florence-2-base.partial")
    (one / "empty").mkdir()
    roots = [one, two, tmp_path / "missing"]
    assert captioner_names(roots) == ["Qwen/Qwen3-VL-2B-Instruct", "my blip", "wd"]
    choices = captioner_choices(roots)
    assert choices[0] == "Florence-2-base (download, 0.5 GB)"
    assert choices[-3:] == captioner_names(roots)


@pytest.mark.parametrize("form", ["label", "repo", "name"])
def test_a_known_model_is_found_where_it_was_downloaded_or_put(tmp_path: Path, form: str) -> None:
    written = getattr(KNOWN[0], form)
    assert known_model(written) is KNOWN[0]
    assert find_captioner(written, [tmp_path]) is None
    folder = make(tmp_path / KNOWN[0].name)
    assert find_captioner(written, [tmp_path]) == folder


def test_a_known_model_in_a_folder_of_its_owner(tmp_path: Path) -> None:
    folder = make(tmp_path / KNOWN[0].repo)
    assert find_captioner(KNOWN[0].label, [tmp_path / "x", tmp_path]) == folder


@pytest.mark.parametrize("way_out", ["../outside", "/etc", "", "a/../../outside", ".."])
def test_nothing_outside_of_the_roots_is_found(tmp_path: Path, way_out: str) -> None:
    make(tmp_path / "outside")
    (tmp_path / "outside" / "config.json").exists()
    root = tmp_path / "root"
    make(root / "inside")
    assert find_captioner(way_out, [root]) is None
    assert find_captioner("inside", [root]) == root / "inside"


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path / "outside")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    assert find_captioner("link", [tmp_path / "root"]) is None


def test_what_to_do_without_download(tmp_path: Path) -> None:
    text = str(not_there(KNOWN[0].label, [tmp_path]))
    for fact in ("Florence-2-base", "downloading is off", "0.5 GB", KNOWN[0].repo, str(tmp_path / KNOWN[0].name)):
        assert fact in text
    assert "model*.safetensors" in text


def test_what_to_do_about_an_unknown_name(tmp_path: Path) -> None:
    make(tmp_path / "blip")
    text = str(not_there("blib", [tmp_path]))
    for fact in ("'blib'", str(tmp_path), "found there: blip", "config.json", "model.safetensors", "press R"):
        assert fact in text
