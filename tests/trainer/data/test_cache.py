"""Entries of the cache are correct, whatever happens to its files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import lora_crucible
import pytest
import torch
from lora_crucible.data import cache as cache_module
from lora_crucible.data.cache import TensorCache

VALUE = {
    "latent": torch.arange(6.0).reshape(2, 3),
    "nothing": None,
    "encoded": [
        [torch.ones(1, 2, dtype=torch.bfloat16), {"pooled": torch.zeros(3), "strength": 0.5, "words": ("a", 1)}]
    ],
}


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def refuse():
    raise AssertionError("it was made again")


@pytest.fixture(params=[True, False], ids=["on disk", "in memory"])
def folder(request, tmp_path: Path) -> Path | None:
    return tmp_path / "cache" if request.param else None


def test_an_entry_is_made_once(folder: Path | None) -> None:
    cache = TensorCache(folder)
    assert not cache.holds("a")
    assert same(cache.get("a", lambda: VALUE), VALUE)
    assert cache.holds("a")
    assert same(cache.get("a", refuse), VALUE)
    with pytest.raises(KeyError):
        cache.get("b")


def test_the_next_process_finds_it(tmp_path: Path) -> None:
    TensorCache(tmp_path).get("a", lambda: VALUE)
    later = TensorCache(tmp_path)
    assert later.holds("a")
    assert same(later.get("a", refuse), VALUE)
    assert (later.made, later.found) == (0, 1)
    shared = torch.ones(2)
    later.get("twice", lambda: [shared, shared])
    assert same(TensorCache(tmp_path).get("twice", refuse), [shared, shared])


def test_what_no_file_can_hold_stays_in_memory(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    special = object()
    assert cache.get("a", lambda: [special]) == [special]
    assert cache.holds("a")
    assert cache.get("a", refuse) == [special]
    assert not TensorCache(tmp_path).holds("a")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-4], lambda data: b"\0" * len(data)])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage) -> None:
    TensorCache(tmp_path).get("a", lambda: VALUE)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    cache = TensorCache(tmp_path)
    assert not cache.holds("a")
    assert same(cache.get("a", lambda: VALUE), VALUE)
    assert same(TensorCache(tmp_path).get("a", refuse), VALUE)


def writer(folder: Path, count: int | None = None) -> subprocess.Popen[str]:
    """Start a process that writes entries 0, 1, 2, ... and prints the number of each."""
    package = Path(lora_crucible.__file__).parent
    script = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
        f"from {package.name}.data.cache import TensorCache\n"
        "import itertools, pathlib, torch\n"
        f"cache = TensorCache(pathlib.Path({str(folder)!r}))\n"
        f"for i in itertools.islice(itertools.count(), {count}):\n"
        "    assert cache.get(str(i), lambda: torch.full((200_000,), float(i)))[-1] == i\n"
        "    print(i, flush=True)\n"
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    processes = [writer(tmp_path, 40) for _ in range(2)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    cache = TensorCache(tmp_path)
    assert all((cache.get(str(index), refuse) == index).all() for index in range(40))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_process_killed_while_writing_leaves_whole_entries(tmp_path: Path) -> None:
    process = writer(tmp_path)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.kill()
    process.wait()
    cache = TensorCache(tmp_path)
    for index in range(20):
        assert torch.equal(cache.get(str(index), refuse), torch.full((200_000,), float(index)))


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "IN_MEMORY", 10_000)
    cache = TensorCache(tmp_path)
    for index in range(20):
        cache.get(str(index), lambda index=index: torch.full((1000,), float(index)))
    assert sum(size for _, size in cache._memory.values()) <= 10_000
    assert cache.get("0", refuse)[0] == 0


def test_the_oldest_entries_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, limit=20_000)
    for index in range(10):
        cache.get(str(index), lambda: torch.zeros(1000))
    assert cache.clean() > 40_000  # all entries have just been used
    week = time.time() - 7 * 24 * 3600
    for index in range(10):
        path = cache._path(str(index))
        assert path is not None
        os.utime(path, (week + index, week + index))
    TensorCache(tmp_path).get("0", refuse)  # reading it makes it recent again
    assert cache.clean() <= 20_000
    fresh = TensorCache(tmp_path)
    assert [index for index in range(10) if fresh.holds(str(index))] == [0, 7, 8, 9]
    assert fresh.size() <= 20_000
