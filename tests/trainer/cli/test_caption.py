"""Tests of the command `python -m trainer caption` as users run it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import tiny_captioners as tiny
from lora_crucible.captioners import registry
from lora_crucible.captioners.blip import BlipCaptioner
from lora_crucible.cli.main import main


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip(tmp_path_factory.mktemp("models") / "tiny-blip")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "my 猫 images"
    folder.mkdir()
    for seed in range(3):
        tiny.picture(seed).save(folder / f"{seed}.png")
    (folder / "1.txt").write_text("mine")
    return folder


def test_missing_captions_are_written_beside_the_images(
    images: Path, blip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["caption", str(images), "--captioner", str(blip), "--trigger_word", "crux", "--max_length", "3"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "2 images captioned by tiny-blip, 1 left unchanged" in output
    assert (images / "1.txt").read_text() == "mine"
    written = (images / "0.txt").read_text()
    assert written.startswith("crux, word")
    assert len(written.split()) <= 4
    assert not list(images.glob("*.bak"))


def test_one_table(images: Path, blip: Path) -> None:
    table = images / "metadata.csv"
    assert main(["caption", str(images), "--captioner", str(blip), "--output", str(table)]) == 0
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file_name"] for row in rows) == ["0.png", "1.png", "2.png"]
    assert {row["file_name"]: row["text"] for row in rows}["1.png"] == "mine"
    assert not (images / "0.txt").exists()


def test_what_is_not_done_is_named_and_is_no_success(
    images: Path, blip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.picture(7).convert("RGB").save(images / "0.jpg")
    (images / "1.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81\xff\xff")
    assert main(["caption", str(images), "--captioner", str(blip)]) == 8
    output = capsys.readouterr().out
    assert "1 image captioned" in output
    for part in ("Not captioned: 0.jpg", "Not captioned: 0.png", "1.txt is not a text file"):
        assert part in output
    assert [path.name for path in sorted(images.glob("*.txt"))] == ["1.txt", "2.txt"]


def test_a_table_that_training_does_not_look_for(images: Path, blip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = images / "mine.jsonl"
    assert main(["caption", str(images), "--captioner", str(blip), "--output", str(table)]) == 0
    assert f"Training reads them if you set metadata_path to {table}" in capsys.readouterr().out


def test_replacing_keeps_a_backup_and_a_second_run_needs_no_model(
    images: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["caption", str(images), "--captioner", str(blip), "--mode", "replace"]
    assert main(arguments) == 0
    assert (images / "1.txt.bak").read_text() == "mine"
    first = {path.name: path.read_text() for path in images.glob("*.txt")}

    def never(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(BlipCaptioner, "_load", never)
    assert main(arguments) == 0
    assert {path.name: path.read_text() for path in images.glob("*.txt")} == first
    assert not (images / "1.txt.bak2").exists()


def test_ctrl_c_writes_what_is_done(
    images: Path, blip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caption = BlipCaptioner.caption

    def once(self: BlipCaptioner, *arguments: object) -> list[str]:
        if hasattr(self, "done"):
            raise KeyboardInterrupt
        self.done = True
        return caption(self, *arguments)

    monkeypatch.setattr(BlipCaptioner, "caption", once)
    assert main(["caption", str(images), "--captioner", str(blip), "--batch_size", "1"]) == 130
    assert (images / "0.txt").exists()
    assert not (images / "2.txt").exists()
    assert "1 caption file written" in capsys.readouterr().out


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) in (3, 4)
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_a_captioner_that_is_not_there(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failed(capsys, "caption", str(images))
    for fact in ("Florence-2-base", "downloading is off", "0.5 GB", "captioners"):
        assert fact in text


def test_a_folder_that_is_no_captioner(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    text = failed(capsys, "caption", str(images), "--captioner", str(tmp_path / "model"))
    assert "LlamaForCausalLM" in text
    assert all(kind.supported in text for kind in registry.KINDS)


def test_a_folder_without_images(tmp_path: Path, blip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "none") in failed(capsys, "caption", str(tmp_path / "none"), "--captioner", str(blip))


@pytest.mark.parametrize("arguments", [["--max_length", "-1"], ["--general_threshold", "2"], ["--mode", "add"]])
def test_values_out_of_range(images: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["caption", str(images), *arguments])
    assert arguments[0] in capsys.readouterr().err


def test_the_options_of_the_guides_name_the_folder_and_the_table(images: Path, blip: Path) -> None:
    """Guides write: python tools/auto_label.py --input FOLDER --output FOLDER/metadata.csv."""
    table = images / "metadata.csv"
    assert main(["caption", "--input", str(images), "--output", str(table), "--captioner", str(blip)]) == 0
    with table.open(encoding="utf-8", newline="") as file:
        assert {row[0] for row in csv.reader(file)} >= {"0.png", "2.png"}


def test_an_unknown_option_is_answered_with_the_nearest(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(["caption", str(images), "--triger_word=crux"])
    assert exit_status.value.code == 2
    assert "did you mean --trigger_word instead of --triger_word?" in capsys.readouterr().err


def test_a_folder_is_named_once(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], [str(images), "--input", str(images)]):
        with pytest.raises(SystemExit):
            main(["caption", *arguments])
        assert "--input" in capsys.readouterr().err
