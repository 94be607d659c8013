"""Every image is decoded exactly once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lora_crucible.data.images import image_facts as facts
from lora_crucible.data.images.image_facts import all_facts, find_facts
from PIL import Image, ImageFilter


def noise(path: Path, size: tuple[int, int] = (400, 300), blur: float = 0) -> Path:
    Image.effect_noise(size, 90).filter(ImageFilter.GaussianBlur(blur)).save(path)
    return path


def test_size_after_rotation_alpha_and_errors(tmp_path: Path) -> None:
    picture = Image.new("RGB", (80, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "sideways.jpg", exif=exif)
    found = find_facts(tmp_path / "sideways.jpg")
    assert (found.width, found.height, found.has_alpha, found.error) == (60, 80, False, "")
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    assert find_facts(tmp_path / "clear.png").has_alpha
    (tmp_path / "text.png").write_text("no picture")
    assert "not an image" in find_facts(tmp_path / "text.png").error
    assert "cannot be opened" in find_facts(tmp_path / "missing.png").error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count the peak in other units")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(60)]
    Image.new("RGB", (2000, 2000)).save(paths[0], compress_level=1)
    for path in paths[1:]:
        os.link(paths[0], path)
    package = Path(facts.__file__).parents[2]
    script = (
        f"import pathlib, resource, sys; sys.path.insert(0, {str(package.parent)!r})\n"
        f"from {package.name}.data.images.image_facts import all_facts\n"
        "def peak(paths):\n"
        "    assert len(all_facts(map(pathlib.Path, paths))) == len(paths)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(-peak(sys.argv[1:10]) + peak(sys.argv[1:]))\n"
    )
    grown = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True)
    assert int(grown.stdout) * 1024 < 10 * 2000 * 2000 * 3  # bytes; all images together would need five times as much


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record the images that are decoded, in order."""
    seen: list[Path] = []
    original = facts.find_facts
    monkeypatch.setattr(facts, "find_facts", lambda path: seen.append(path) or original(path))
    return seen


def test_only_what_changed_is_decoded_again(tmp_path: Path, decoded: list[Path]) -> None:
    paths = [noise(tmp_path / f"{number}.png") for number in range(3)]
    index = tmp_path / "index" / "facts.json"
    first = all_facts(paths, index)
    assert sorted(decoded) == paths
    assert all_facts(paths, index) == first
    assert len(decoded) == 3

    times = paths[1].stat()
    noise(paths[1], (401, 300))
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copying programs do
    changed = all_facts(paths, index)
    assert decoded[3:] == [paths[1]]
    assert changed[paths[1]].width == 401


@pytest.mark.parametrize(
    "content", ["", "{", '{"version": 0, "files": {}}', '{"version": 1, "files": {"a": [1]}}', "[]"]
)
def test_a_damaged_index_is_made_anew(tmp_path: Path, decoded: list[Path], content: str) -> None:
    paths = [noise(tmp_path / "a.png")]
    index = tmp_path / "facts.json"
    index.write_text(content)
    all_facts(paths, index)
    assert decoded == paths
    assert json.loads(index.read_text())["version"] == facts.VERSION


def test_what_was_decoded_before_a_cancel_is_kept(tmp_path: Path, decoded: list[Path]) -> None:
    paths = [noise(tmp_path / f"{number}.png", (40, 30)) for number in range(20)]

    def cancel(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        all_facts(paths, tmp_path / "facts.json", cancel)
    decoded.clear()
    assert len(all_facts(paths, tmp_path / "facts.json")) == 20
    assert len(decoded) <= 15
