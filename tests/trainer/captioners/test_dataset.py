"""Tests of captions in datasets and of the way training sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_captioner import FakeCaptioner, save_pictures
from lora_crucible.captioners.dataset import pictures_in, pictures_of, with_captions
from lora_crucible.captioners.options import CaptionOptions
from lora_crucible.captioners.run import CaptionResult, caption_images
from lora_crucible.captioners.write import write_sidecars
from lora_crucible.config import DataSettings
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError


def load(folder: Path, trigger_word: str = "crux", **settings) -> ImageDataset:
    return load_dataset(DataSettings(train_data_dir=str(folder), trigger_word=trigger_word, **settings))


def captioned(
    dataset: ImageDataset, captioner: FakeCaptioner, mode: str = "only_missing"
) -> tuple[ImageDataset, CaptionResult]:
    result = CaptionResult()
    options = CaptionOptions(mode=mode, trigger_word=dataset.trigger_word)
    for done in caption_images(captioner, pictures_of(dataset), options, captioner.session):
        result.add(done)
    return with_captions(dataset, result.captions), result


def test_only_the_named_captions_change(tmp_path: Path) -> None:
    first, _ = save_pictures(tmp_path, 2)
    dataset = load(tmp_path, resolution=64)
    changed = with_captions(dataset, {first: "a cat"})
    assert [image.caption for image in changed.images] == ["a cat", "crux"]
    assert (changed.trigger_word, changed.folder) == ("crux", tmp_path)
    assert [image.caption for image in dataset.images] == ["crux", "crux"]
    assert changed.fingerprint != dataset.fingerprint


def test_an_image_that_is_repeated_is_captioned_once(tmp_path: Path) -> None:
    save_pictures(tmp_path, 2)
    dataset = load(tmp_path)
    repeated = replace(dataset, images=dataset.images * 3)
    changed, result = captioned(repeated, captioner := FakeCaptioner(tmp_path / "model"))
    assert captioner.batches == [[0, 1]]
    assert len(result.written) == 2
    assert [image.caption for image in changed.images] == ["crux, shade 0, plain", "crux, shade 1, plain"] * 3


def test_a_folder_without_captions_can_be_captioned(tmp_path: Path) -> None:
    first, _ = save_pictures(tmp_path, 2)
    first.with_suffix(".txt").write_text("a  cat\n")
    pictures, unread = pictures_in(tmp_path)
    assert [(picture.name, picture.caption) for picture in pictures] == [("00.png", "a cat"), ("01.png", "")]
    assert not unread


def test_a_caption_that_is_no_text_leaves_out_its_image_alone(tmp_path: Path) -> None:
    first, _ = save_pictures(tmp_path, 2)
    first.with_suffix(".txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81\xff\xff")
    pictures, unread = pictures_in(tmp_path)
    assert [picture.name for picture in pictures] == ["01.png"]
    assert len(unread) == 1
    assert "00.png" in unread[0]
    assert "00.txt is not a text file" in unread[0]


def test_written_captions_are_read_as_the_same_dataset(tmp_path: Path) -> None:
    """A training that compares the dataset's content does not notice that files were written."""
    for mode in ("only_missing", "replace", "append", "prepend"):
        folder = tmp_path / mode
        paths = save_pictures(folder, 3)
        paths[0].with_suffix(".txt").write_text("mine")
        captioner = FakeCaptioner(tmp_path / "model")
        first, result = captioned(load(folder), captioner, mode)
        write_sidecars({path: result.captions[path] for path in result.written})
        second, _ = captioned(load(folder), captioner, mode)
        assert second.fingerprint == first.fingerprint, mode
        assert load(folder).fingerprint == first.fingerprint, mode


def test_captions_make_a_dataset_without_any_trainable(tmp_path: Path) -> None:
    first, second = save_pictures(tmp_path, 2)
    dataset = load(tmp_path, trigger_word="")
    with pytest.raises(CrucibleError, match="2 images have no caption"):
        dataset.require_trainable()
    with pytest.raises(CrucibleError, match="1 image has no caption"):
        with_captions(dataset, {first: "a cat"}).require_trainable()
    with_captions(dataset, {first: "a cat", second: "a dog"}).require_trainable()


def test_captions_that_no_file_holds_are_known(tmp_path: Path) -> None:
    """A run from a config file that names the folder would train without these captions."""
    first, second = save_pictures(tmp_path, 2)
    dataset = load(tmp_path)
    changed = with_captions(dataset, {first: "a cat"})
    assert "only in the workflow" in changed.not_in_folder
    assert "only in the workflow" in with_captions(changed, {second: "a dog"}, in_files=True).not_in_folder
    assert with_captions(dataset, {first: "a cat"}, in_files=True).not_in_folder == ""
    assert with_captions(dataset, {first: "crux"}).not_in_folder == ""


def test_an_image_whose_caption_stays_keeps_all_of_its_captions(tmp_path: Path) -> None:
    first, _ = save_pictures(tmp_path, 2)
    first.with_suffix(".txt").write_text("crux, a cat\ncrux, asleep\n")
    changed, _ = captioned(load(tmp_path, captions_per_line=True), FakeCaptioner(tmp_path / "model"))
    assert [image.captions for image in changed.images] == [("crux, a cat", "crux, asleep"), ("crux, shade 1, plain",)]
