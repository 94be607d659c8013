"""A cache that several processes fill: each entry once, where they share the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_crucible.data.cache import Job, TensorCache
from lora_crucible.distributed.processes import FailedElsewhere, OutOfMemoryTogether, Processes
from lora_crucible.hardware.out_of_memory import is_out_of_memory
from several import run_together

KEYS = [f"key {number}" for number in range(12)]


def made_by(processes: Processes, log: Path, cache: TensorCache, fails: BaseException | None = None) -> None:
    """Fill a cache with a tensor for each key, and write down who made which."""

    def make(number: int) -> torch.Tensor:
        if fails is not None:
            raise fails
        with open(log, "a") as file:
            file.write(f"{number} {processes.rank}\n")
        return torch.full((3,), float(number))

    jobs = [Job(key, lambda number=number: make(number), "tensors", 1 + number % 3) for number, key in enumerate(KEYS)]
    cache.fill(jobs, lambda *_: None, is_out_of_memory)


def read(log: Path) -> list[tuple[int, int]]:
    return sorted((int(number), int(rank)) for number, rank in map(str.split, log.read_text().splitlines()))


def test_each_entry_is_made_once_and_found_by_all(tmp_path):
    def work(processes: Processes) -> None:
        cache = TensorCache(tmp_path / "cache")
        made_by(processes, tmp_path / "log", cache)
        assert [cache.get(key)[0].item() for key in KEYS] == list(range(12))
        assert cache.made == 12
        again = TensorCache(tmp_path / "cache")
        made_by(processes, tmp_path / "again", again)
        assert again.made == 0

    run_together(3, work, tmp_path)
    made = read(tmp_path / "log")
    assert [number for number, _ in made] == list(range(12))
    costs = [sum(1 + number % 3 for number, by in made if by == rank) for rank in range(3)]
    assert max(costs) - min(costs) <= 2
    assert not (tmp_path / "again").exists()
    assert len(list((tmp_path / "cache").glob("??/*"))) == 12


def test_what_is_there_already_is_shared_out_anew(tmp_path):
    """The rest is shared, although every second entry is there."""
    before = TensorCache(tmp_path / "cache")
    for number in range(0, 12, 2):
        before.get(KEYS[number], lambda: torch.full((3,), 7.0))

    run_together(2, lambda processes: made_by(processes, tmp_path / "log", TensorCache(tmp_path / "cache")), tmp_path)
    made = read(tmp_path / "log")
    assert [number for number, _ in made] == list(range(1, 12, 2))
    assert {rank for _, rank in made} == {0, 1}


def test_machines_that_share_no_folder_fill_their_own(tmp_path):
    def work(processes: Processes) -> None:
        cache = TensorCache(tmp_path / f"cache {processes.rank % 2}")
        made_by(processes, tmp_path / f"log {processes.rank % 2}", cache)
        assert [cache.get(key)[0].item() for key in KEYS] == list(range(12))

    run_together(3, work, tmp_path)
    assert [number for number, _ in read(tmp_path / "log 0")] == list(range(12))
    assert {rank for _, rank in read(tmp_path / "log 0")} == {0, 2}
    assert read(tmp_path / "log 1") == [(number, 1) for number in range(12)]


@pytest.mark.parametrize("folder", ["file/below", None])
def test_what_cannot_be_written_is_made_by_each(tmp_path, folder):
    (tmp_path / "file").touch()

    def work(processes: Processes) -> None:
        cache = TensorCache(None if folder is None else tmp_path / folder)
        made_by(processes, tmp_path / f"log {processes.rank}", cache)
        assert [cache.get(key)[0].item() for key in KEYS] == list(range(12))

    run_together(2, work, tmp_path)
    assert len(read(tmp_path / "log 0")) == len(read(tmp_path / "log 1")) == 12


def test_a_failure_in_one_is_a_failure_in_all(tmp_path):
    def work(processes: Processes) -> None:
        cache, log = TensorCache(tmp_path / "cache"), tmp_path / "log"
        mine = processes.rank == 1
        with pytest.raises(OutOfMemoryTogether):
            made_by(processes, log, cache, MemoryError("no room") if mine else None)
        with pytest.raises(ValueError if mine else FailedElsewhere):
            made_by(processes, log, cache, ValueError("broken") if mine else None)
        made_by(processes, log, cache)
        assert [cache.get(key)[0].item() for key in KEYS] == list(range(12))

    run_together(2, work, tmp_path)
