"""A disk of a few hundred kilobytes: a tmpfs of its own, for tests of what happens when it is full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted disk; it can be made larger, as when somebody frees some space."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def grow(self, kib: int) -> None:
        """Return it so much room in all."""
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(self.path)], check=True, capture_output=True)

    def fill(self, leave_kib: int) -> None:
        """Use it up but for so much."""
        chunk, ballast = 4096, self.path / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(chunk))
            except OSError:
                file.truncate(max(0, file.tell() - leave_kib * 1024))

    def free(self) -> None:
        """Return back what `fill` used."""
        (self.path / "ballast").unlink()


@contextmanager
def small_disk(path: Path, kib: int) -> Iterator[SmallDisk]:
    """Mount a disk at a new folder, and take it away at the end; skip the test where nobody may mount."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a full disk needs the right to mount one (root on Linux)")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)
