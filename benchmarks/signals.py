"""Stop trainings by SIGTERM at random moments, resume them, and compare what comes out.

    <python with the pack's standalone packages> benchmarks/signals.py [--runs 20] [--seed 0] [--output FILE.json]

The real command line trains on the demo model. Each run gets one SIGTERM at a moment that is drawn from the time that
an undisturbed process takes, so that some come while packages load, while images are encoded, between steps, while
samples are drawn, errors are measured or a checkpoint is written. A run passes if its process ended with the status of
the signal (or was done already), every file is whole, and the LoRA after the same command again is bit-identical to
that of the undisturbed run. Times are only comparable if nothing else runs on the machine.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from shared import ROOT, circumstances, load_trainer, save


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "signals.json")
    options = parser.parse_args()
    load_trainer()
    sys.path.append(str(ROOT / "tests" / "faults"))
    from stopped_runs import RUN, STATUSES, stopped_and_resumed, undisturbed

    generator = random.Random(options.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, seconds = undisturbed(folder / "undisturbed")
        for number in range(options.runs):
            row = stopped_and_resumed(folder / str(number), generator.uniform(0, seconds), expected)
            row["passed"] = row["status"] in STATUSES and row["equal"]
            rows.append(row)
            print(row, flush=True)
            result = {"run": RUN, "undisturbed_seconds": round(seconds, 1), "runs": rows}
            save({**result, **circumstances()}, options.output)
    passed = sum(row["passed"] for row in rows)
    print(f"{passed} of {len(rows)} passed")
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
