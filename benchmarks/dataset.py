"""Measure how long it takes to check and bucket a dataset of 1,000 images, the first and the second time.

    python benchmarks/dataset.py [--images 1000] [--output FILE.json]

The images have 1024 x 1024 pixels, half of them JPEG and half PNG. They are made from smoothed noise, so they compress
about as well as photographs. Each measurement runs in its own process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared import save

ROOT = Path(__file__).resolve().parent.parent
SIDE = 1024
STARTS = 3
"""The number of measurements of each kind; the median is reported."""


def make_images(folder: Path, count: int) -> int:
    """Write images and captions to a folder; return the total size of all files in bytes."""
    from PIL import Image, ImageFilter

    large = 4 * SIDE
    coarse = Image.merge("RGB", [Image.effect_noise((large // 16, large // 16), 90) for _ in range(3)])
    fine = Image.merge("RGB", [Image.effect_noise((large, large), 20) for _ in range(3)])
    everything = Image.blend(coarse.resize((large, large), Image.Resampling.BICUBIC), fine, 0.2)
    everything = everything.filter(ImageFilter.GaussianBlur(0.7))
    for number in range(count):
        left, top = number * 97 % (large - SIDE), number * 1543 % (large - SIDE)
        picture = everything.crop((left, top, left + SIDE, top + SIDE))
        if number % 2:
            picture.save(folder / f"{number:04}.jpg", quality=92)
        else:
            picture.save(folder / f"{number:04}.png", compress_level=4)
        (folder / f"{number:04}.txt").write_text(f"picture number {number} of many, in colours, on a wall")
    return sum(path.stat().st_size for path in folder.iterdir())


def start(folder: Path, facts: Path) -> dict[str, float]:
    """Load a dataset and create its report; return the time and peak memory of this process."""
    sys.path.insert(0, str(ROOT))
    from trainer.config import DataSettings
    from trainer.data.images.load import load_dataset
    from trainer.data.images.report import dataset_report

    began = time.perf_counter()
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), resolution=SIDE), facts_folder=facts)
    report = dataset_report(dataset)
    seconds = time.perf_counter() - began
    assert report.images == len(list(folder.glob("*.txt")))
    return {
        "seconds": round(seconds, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
    }


def measured(folder: Path, facts: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--start", str(folder), str(facts)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def median(starts: list[dict[str, float]]) -> dict[str, Any]:
    seconds = [one["seconds"] for one in starts]
    return {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "peak_memory_gb": max(one["peak_memory_gb"] for one in starts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--start", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        print(json.dumps(start(*arguments.start)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        size = make_images(folder, arguments.images)
        first = [measured(folder, Path(temporary) / f"facts {number}") for number in range(STARTS)]
        second = [measured(folder, Path(temporary) / "facts 0") for _ in range(STARTS)]
    import PIL

    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "what": f"{arguments.images} images of {SIDE} x {SIDE} pixels ({size / 1e9:.2f} GB): checked and bucketed",
        "hardware": {"cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "Pillow": PIL.__version__},
        "first_start": median(first),
        "second_start": median(second),
    }
    print(json.dumps(result, indent=1))
    save(result, arguments.output)


if __name__ == "__main__":
    main()
