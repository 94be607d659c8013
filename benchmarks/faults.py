"""Inject faults into trainings and measure what is lost.

    <python with the pack's standalone packages> benchmarks/faults.py [kills | others] [--kills 50] [--seconds 200]
        [--output FILE.json]

`kills`: the real command line trains on the demo model, is killed with SIGKILL at moments spread evenly over the life
of a process, and is started again until it finishes. A kill counts as survived if every LoRA and the latest checkpoint
are intact afterwards. A run counts as equal if its LoRA is bit-identical to that of an uninterrupted run and its log
has each step exactly once. New runs are started for `--seconds`; the results so far are kept in the file, and the next
call continues from there.

`others`: counts the results of the tests that inject faults.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from shared import ROOT, circumstances, load_trainer, save

TESTS = (
    "trainer/training/test_killed.py",
    "trainer/cli/test_interrupt.py",
    "trainer/training/test_disks.py",
    "trainer/training/test_clocks.py",
    "trainer/runs/test_checkpoint.py",
    "trainer/training/test_resume.py",
)
"""The test files that inject faults."""

RUN = {
    "base_model": "demo",
    "train_data_dir": "demo",
    "output_name": "mine",
    "lora_rank": 4,
    "max_train_steps": 40,
    "batch_size": 4,
    "save_steps": 1,
    "sample_steps": 2,
    "sample_every_n_steps": 20,
    "validation_percent": 20,
    "validate_every_n_steps": 15,
    "measure": "always",
    "save_precision": "fp32",
}

MOST_OF_A_LIFE = 0.7
"""The latest moment of a kill, as a share of the time that an uninterrupted process takes. It is less than 1 because a
resumed process finishes sooner, and should be killed as well."""


def kills(result: dict[str, Any], most: int, seconds: float) -> None:
    """Add runs to `result` until it has `most` kills or the time is up."""
    began = time.monotonic()
    rows = result.setdefault("runs", [])
    while (left := most - sum(len(row["kills"]) for row in rows)) > 0 and time.monotonic() - began < seconds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(killed_run(Path(folder), seed=len(rows), most=left))
        print(rows[-1], flush=True)
    done = [kill for row in rows for kill in row["kills"]]
    result["kills"] = len(done)
    result["by_phase"] = dict(Counter(kill["phase"] for kill in done).most_common())
    result["survived"] = sum(kill["whole"] for kill in done)
    result["runs_equal_to_an_uninterrupted_one"] = sum(row["equal"] for row in rows)


def killed_run(folder: Path, seed: int, most: int) -> dict[str, Any]:
    from processes import assert_whole, start_training

    def config(name: str) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps({**RUN, "seed": seed, "output_dir": str(folder / name)}))  # JSON is YAML
        return path

    output = folder / "output.txt"
    began = time.monotonic()
    if start_training(config("whole"), output).wait():
        raise RuntimeError(output.read_text())
    life = time.monotonic() - began
    moments, found = random.Random(seed), []
    while len(found) < most:
        process = start_training(config("killed"), output)
        before = Before(folder / "killed")
        try:
            status = process.wait(moments.uniform(0, MOST_OF_A_LIFE * life))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            phase = before.phase_of_death()
            try:
                assert_whole(folder / "killed")
                whole = True
            except Exception as error:  # any failed check counts
                print(f"{phase}: {error}", flush=True)
                whole = False
            found.append({"phase": phase, "whole": whole})
            continue
        if status:
            raise RuntimeError(output.read_text())
        break
    else:
        if start_training(config("killed"), output).wait():
            raise RuntimeError(output.read_text())
    return {"seed": seed, "seconds_of_a_process": round(life, 1), "kills": found, "equal": equal(folder)}


class Before:
    """The state of a run's folder when a process started, to find out how far the process got."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._run = folder, folder / "mine"
        self._began = time.time()
        self._record, self._lines = self._written("run.json"), self._count()

    def phase_of_death(self) -> str:
        if self._written("run.json") == self._record:
            return "starting"
        latest = [path for path in self._folder.rglob("*") if path.is_file() and path.stat().st_mtime >= self._began]
        if any(".unfinished" in path.parts for path in latest):
            return "writing a checkpoint"
        if any(path.name.startswith(".crucible-") for path in latest):
            return "writing another file"
        if (self._folder / "mine.safetensors").exists():
            return "measuring the result"
        return "training" if self._count() > self._lines else "encoding and first samples"

    def _written(self, name: str) -> int:
        path = self._run / name
        return path.stat().st_mtime_ns if path.exists() else 0

    def _count(self) -> int:
        path = self._run / "log.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def equal(folder: Path) -> bool:
    """Return whether the killed run has the same result as the uninterrupted one."""
    import torch
    from lora_crucible.formats.lora_file import read_lora
    from lora_crucible.runs.log import read_log

    names = [path.name for path in (folder / "killed").glob("*.safetensors")]
    if names != ["mine.safetensors"]:
        return False
    one, other = (read_lora(folder / name / names[0])[0] for name in ("whole", "killed"))
    logs = [
        [(line["step"], line["loss"]) for line in read_log(folder / name / "mine" / "log.jsonl")]
        for name in ("whole", "killed")
    ]
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one) and logs[0] == logs[1]


def others(result: dict[str, Any]) -> None:
    for name in TESTS:
        with tempfile.NamedTemporaryFile(suffix=".xml") as file:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={file.name}"]
            subprocess.run([*command, "-m", "", f"tests/{name}"], cwd=ROOT, capture_output=True)
            counts = ElementTree.parse(file.name).getroot()[0].attrib
        tests, skipped = int(counts["tests"]), int(counts["skipped"])
        failed = int(counts["failures"]) + int(counts["errors"])
        result[name] = {"passed": tests - skipped - failed, "failed": failed, "skipped": skipped}
        print(name, result[name], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("kills", "others")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" | ".join(parts))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "faults.json")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown part: {', '.join(unknown)}")
    load_trainer()
    sys.path.append(str(ROOT / "tests" / "faults"))
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    result: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        result = json.loads(options.output.read_text(encoding="utf-8"))
    for part in options.parts or parts:
        found = result.setdefault(part, {})
        if part == "kills":
            kills(found, options.kills, options.seconds)
        else:
            others(found)
        result.update(circumstances())
        save(result, options.output)


if __name__ == "__main__":
    main()
