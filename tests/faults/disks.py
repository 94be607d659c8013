"""Disks that are full or read-only, and files that they damaged."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path


def flip_a_bit(path: Path, place: float) -> None:
    """Of a file, `place` (0..1) of the way through it."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def cut(path: Path, place: float) -> None:
    """Leave the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content))])


class SmallDisk:
    """A disk in memory. Only root can mount one.

    Raises:
        OSError: it cannot be mounted here.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs")
        self._filler = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Take all of its room, but for so many bytes (in whole pages)."""
        with open(self._filler, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(file.tell() // 4096 * 4096 - leave)

    def free(self) -> None:
        self._filler.unlink()

    def read_only(self, on: bool = True) -> None:
        self._mount("-o", f"remount,{'ro' if on else 'rw'}")

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, str(self.folder)], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())
