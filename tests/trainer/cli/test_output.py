"""No file name, caption, terminal or reader of the output can break a command."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lora_crucible.cli.output import SafeOutput
from PIL import Image
from safetensors import safe_open

ROOT = Path(__file__).parents[3]
NOT_UTF_8 = os.fsdecode(b"caf\xe9.png")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names of bytes and /dev/full are those of Linux")


def shown(text: str, encoding: str = "utf-8") -> str:
    """Return what arrives of a text at a terminal with this encoding."""
    received = io.BytesIO()
    output = SafeOutput(io.TextIOWrapper(received, encoding=encoding, newline="\n"))
    assert output.write(text) == len(text)
    output.flush()
    return received.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("Ärger 猫 ♂", "utf-8", "Ärger 猫 ♂"),
        ("Ärger 猫 ♂", "cp1252", "Ärger \\u732b \\u2642"),
        ("Ärger 🦊", "ascii", "\\xc4rger \\U0001f98a"),
        (NOT_UTF_8, "utf-8", "caf\\udce9.png"),
        ("half an emoji: \ud83d", "utf-8", "half an emoji: \\ud83d"),
        ("a\x1b[2Jb\x07\x9b", "utf-8", "a\\x1b[2Jb\\x07\\x9b"),
        ("a\u202egnp.exe", "utf-8", "a\\u202egnp.exe"),
        ("\r 50% \x1b[A\n\t", "utf-8", "\r 50% \x1b[A\n\t"),
    ],
)
def test_what_a_terminal_lacks_or_must_not_get_is_shown_as_an_escape(text: str, encoding: str, expected: str) -> None:
    assert shown(text, encoding) == expected


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a config file for a folder of images that have awkward names."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = [NOT_UTF_8, "two\nlines.png", "red \x1b[31m.png", "♂ 猫.png", "a " * 125 + "z.png"]
    for shade, name in enumerate(names):
        Image.effect_mandelbrot((64, 64), (-2, -1.5, 1 + shade / 5, 1.5), 40).convert("RGB").save(tmp_path / "a.png")
        shutil.move(tmp_path / "a.png", folder / name)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"base_model: demo\ntrain_data_dir: {folder}\noutput_dir: {tmp_path / 'out'}\nresolution: 64\n"
        "trigger_word: crux\nmax_train_steps: 2\nbatch_size: 4\nsample_every_n_steps: 100\nsample_steps: 1\n"
    )
    return config


def run(command: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    """Run a command line in which `trainer` stands for the trainer."""
    variables = {"PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; trainer() {{ "{sys.executable}" -m trainer "$@"; }}; {command}'],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | variables,
    )


@pytest.mark.slow
def test_awkward_names_are_trained_and_everything_about_them_is_written(hostile: Path) -> None:
    done = run(f"trainer check {hostile} && trainer train {hostile}", "ascii:strict")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    folder = hostile.parent / "out" / "lora"
    assert {"log.jsonl", "report.txt", "config.yaml", "loss.png"} <= {path.name for path in folder.iterdir()}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert NOT_UTF_8 in {name for line in lines for name in line["images"]}
    with safe_open(hostile.parent / "out" / "lora.safetensors", "np") as file:
        assert file.metadata()["ss_output_name"] == "lora"


@pytest.mark.slow
def test_a_reader_that_closes_the_pipe_stops_nothing(hostile: Path) -> None:
    assert run(f"trainer check {hostile} | head -1").stderr.count(b"Traceback") == 0
    done = run(f"trainer train {hostile} 2>&1 | head -c 1")
    assert done.returncode == 0
    assert (hostile.parent / "out" / "lora.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_finds_no_room_is_told_and_is_no_success(hostile: Path) -> None:
    done = run(f"trainer check {hostile} > /dev/full")
    assert done.returncode == 6
    assert b"output could not be written completely (No space left on device)" in done.stderr
    assert b"Traceback" not in done.stderr
