"""Simulating full disks, read-only disks and damaged files."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path


def flip_a_bit(path: Path, place: float) -> None:
    """Flip one bit of a file, at the relative position `place` (0..1)."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def cut(path: Path, place: float) -> None:
    """Truncate a file at the relative position `place` (0..1)."""
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content))])


class SmallDisk:
    """A small file system in memory, which only root can mount.

    Args:
        folder: the folder to create and mount it at.
        megabytes: the size of the file system.

    Raises:
        OSError: the file system cannot be mounted.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs")
        self._filler = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Fill the disk completely, except for `leave` bytes (in whole pages)."""
        with open(self._filler, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(file.tell() // 4096 * 4096 - leave)

    def free(self) -> None:
        """Remove what `fill` has written."""
        self._filler.unlink()

    def read_only(self, on: bool = True) -> None:
        """Make the disk read-only, or writable again."""
        self._mount("-o", f"remount,{'ro' if on else 'rw'}")

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, str(self.folder)], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())
