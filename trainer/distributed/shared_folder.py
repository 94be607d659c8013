"""Which processes of a run see the same folder."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from .processes import Processes


def sharing(folder: Path, processes: Processes) -> tuple[int, ...]:
    """Return the ranks of all processes that see the same folder as this one, in order, this one among them.

    Every process writes a file into the folder and looks for those of the others. One that cannot write there shares
    it with none.

    Args:
        folder: the folder, which is created if it does not exist.
        processes: the processes of the run, all of which have to call this.
    """
    if processes.count == 1:
        return (0,)
    token = processes.from_main(secrets.token_hex(8))
    marks = [folder / f".seen-{token}-{rank}" for rank in range(processes.count)]
    own = marks[processes.rank]
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        own.touch()
    processes.gather(None)  # all have written
    seen = {rank for rank, mark in enumerate(marks) if mark.exists()}
    all_seen = processes.gather(sorted(seen))  # all have looked
    with suppress(OSError):
        own.unlink(missing_ok=True)
    # Both must see each other: a folder may be mounted read-only elsewhere.
    ranks = [rank for rank, others in enumerate(all_seen) if rank in seen and processes.rank in others]
    return tuple(ranks) if processes.rank in ranks else (processes.rank,)
