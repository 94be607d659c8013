"""The report names everything that would weaken a training, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.checks import ESTIMATE, TokenCounter, estimated_tokens
from lora_crucible.data.images.load import load_dataset
from lora_crucible.data.images.report import DatasetReport, dataset_report
from PIL import Image, ImageFilter

VIEWS = ["front view", "side view, half body", "full body"]


def make(folder: Path, count: int = 30, size: tuple[int, int] = (640, 640)) -> None:
    """Make a folder of different, sharp images with different captions."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        cells = Image.fromarray(random.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        cells.resize(size, Image.Resampling.NEAREST).save(folder / f"{number}.png", compress_level=1)
        caption = f"a girl in room {number}, {VIEWS[number % 3]}"
        (folder / f"{number}.txt").write_text(caption)


def report(
    folder: Path, resolution: int = 512, tokens: TokenCounter = ESTIMATE, latent_factor: int = 8, **settings
) -> DatasetReport:
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), **settings))
    return dataset_report(dataset, resolution=resolution, tokens=tokens, latent_factor=latent_factor)


def kinds(found: DatasetReport) -> set[str]:
    return {finding.kind for finding in found.findings}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "girl")
    return tmp_path / "girl"


def test_a_good_dataset_has_no_findings(folder: Path) -> None:
    found = report(folder, trigger_word="a girl")
    assert kinds(found) == set()
    assert found.verdict == "READY: no problems were found."
    assert found.sizes == {(512, 512): 30}
    assert found.latent_sizes == ((64, 64),)
    text = found.text()
    for fact in ("30 images", "512 x 512: 30 (latents 64 x 64)", "front 10", "full body 10", "estimate for CLIP"):
        assert fact in text


@pytest.mark.parametrize(
    ("count", "kind", "severity"),
    [(3, "few_images", "warning"), (20, "few_images", "note"), (301, "many_images", "note")],
)
def test_the_number_of_images(tmp_path: Path, count: int, kind: str, severity: str) -> None:
    make(tmp_path, count, (64, 64))
    (finding,) = (finding for finding in report(tmp_path, 64).findings if finding.kind == kind)
    assert finding.severity == severity


def test_images_that_are_small_extreme_blurred_or_alike(folder: Path) -> None:
    Image.open(folder / "0.png").resize((300, 300)).save(folder / "0.png")
    Image.open(folder / "1.png").resize((450, 450)).save(folder / "1.png")
    Image.open(folder / "2.png").resize((2000, 600)).save(folder / "2.png")
    Image.open(folder / "3.png").filter(ImageFilter.GaussianBlur(8)).save(folder / "3.png")
    shutil.copy(folder / "4.png", folder / "copy.png")
    (folder / "copy.txt").write_text("a girl again, from the front")
    found = report(folder)
    by_kind = {finding.kind: finding for finding in found.findings}
    assert by_kind["enlarged"].images == ("0.png",)
    assert by_kind["small"].images == ("1.png",)
    assert by_kind["extreme_aspect"].images == ("2.png",)
    assert by_kind["blurred"].images == ("3.png",)
    assert by_kind["near_duplicates"].images == ("4.png = copy.png",)
    assert "5 things worth a look" in found.verdict
    assert "allow" not in by_kind["enlarged"].text()
    for finding in found.findings:
        assert finding.consequence
        assert finding.remedy


def test_captions_that_teach_little(folder: Path) -> None:
    for number in range(20):
        (folder / f"{number}.txt").write_text("a painting of a city")
    (folder / "20.txt").write_text("word " * 90)
    found = {finding.kind: finding for finding in report(folder).findings}
    assert '20 images have the same caption ("a painting of a city")' in found["captions_alike"].text()
    assert found["captions_long"].images == ("20.png",)
    assert "75 tokens (an estimate for CLIP)" in found["captions_long"].text()
    letters = TokenCounter(len, 1000, "counted by letters", exact=True)
    assert "captions_long" not in kinds(report(folder, tokens=letters))


def test_captions_that_would_fit_any_image(folder: Path) -> None:
    places = ["city", "forest", "lake", "harbour", "street", "field", "church", "bridge", "river", "garden"]
    for number, place in enumerate(places):
        (folder / f"{number}.txt").write_text(f"a painting of a {place}")
    (general,) = (finding for finding in report(folder).findings if finding.kind == "captions_general")
    assert len(general.images) == len(places)
    for number, place in enumerate(places):
        (folder / f"{number}.txt").write_text(f"a {place} at night in rain, with a girl")
    (folder / "0.txt").write_text("一只黑猫坐在窗台上")
    assert "captions_general" not in kinds(report(folder))


def test_an_image_of_another_style(folder: Path) -> None:
    random = np.random.default_rng(1)
    Image.open(folder / "6.png").convert("L").save(folder / "6.png")  # the only one without colours
    photo = random.normal(128, 40, (640, 640, 3)).clip(0, 255).astype(np.uint8)  # the only one without flat areas
    Image.fromarray(photo).save(folder / "7.png")
    (outliers,) = (finding for finding in report(folder).findings if finding.kind == "style_outlier")
    assert outliers.images == ("6.png", "7.png")


def test_no_trigger_word_and_nothing_in_common(folder: Path) -> None:
    assert "no_trigger_word" not in kinds(report(folder))  # all of them contain "girl"
    (folder / "3.txt").write_text("something else, front view, with many words")
    assert "no_trigger_word" in kinds(report(folder))
    assert "no_trigger_word" not in kinds(report(folder, trigger_word="sks"))


def test_missing_captions_come_first_and_make_it_not_ready(folder: Path) -> None:
    (folder / "3.txt").unlink()
    found = report(folder)
    assert found.findings[0].kind == "no_caption"
    assert found.verdict.startswith("NOT READY")
    assert found.text().startswith(found.verdict)


def test_a_bucket_step_that_the_vae_cannot_have(folder: Path) -> None:
    (finding,) = (one for one in report(folder, latent_factor=16, bucket_step=24).findings if one.kind == "bucket_step")
    assert "24 pixels is not a multiple of 16" in finding.text()
    assert "Set it to 32" in finding.remedy
    assert "bucket_step" not in kinds(report(folder, bucket_step=24))


def test_regularization_captions_with_the_trigger_word(folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "reg", 2)
    (tmp_path / "reg" / "1.txt").write_text("sks in a park")
    found = {f.kind: f for f in report(folder, trigger_word="sks", reg_data_dir=str(tmp_path / "reg")).findings}
    assert found["regularization_with_trigger_word"].images == ("1.png",)


def test_estimate_of_tokens() -> None:
    assert estimated_tokens("a cat, sitting") == 4
    assert 6 <= estimated_tokens("水墨画") <= 6
    assert estimated_tokens("") == 0


def test_white_on_transparency_is_blank(folder: Path) -> None:
    for number in range(3):
        logo = Image.new("RGBA", (640, 640), (255, 255, 255, 0))
        logo.paste((255, 255, 255, 255), (100, 100 + number, 300, 300))
        logo.save(folder / f"{number}.png")
    (finding,) = [one for one in report(folder, trigger_word="a girl").findings if one.kind == "blank"]
    assert finding.images == ("0.png", "1.png", "2.png")
    assert "single color" in finding.what


def test_blur_of_16_bit_scans_is_told(folder: Path) -> None:
    for number in range(30):
        grey = np.asarray(Image.open(folder / f"{number}.png").convert("L"))
        if number == 7:
            grey = np.asarray(Image.fromarray(grey).filter(ImageFilter.GaussianBlur(12)))
        Image.fromarray(grey.astype(np.uint16) * 257).save(folder / f"{number}.png")
    found = {one.kind: one.images for one in report(folder, trigger_word="a girl").findings}
    assert found["blurred"] == ("7.png",)
    assert "blank" not in found


def test_how_an_image_was_read_is_told(folder: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (640, 640)).astype(np.float32)
    Image.fromarray(values).save(folder / "float.tif")
    (folder / "float.txt").write_text("a girl in room 99, front view")
    (finding,) = [one for one in report(folder, trigger_word="a girl").findings if one.kind == "file_white_255"]
    assert finding.images == ("float.tif",)
    assert "255 was taken for it" in finding.what
