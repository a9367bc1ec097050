"""Stores records that the ingress refuses because of their content in files beside the ring, so that they do not block
other records.

A file is NDJSON, which the ingress accepts. `python -m meterbridge_litellm repost` posts them again, once the cause is
fixed.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

SUFFIX: Final = ".aside.ndjson"


class Kept(NamedTuple):
    """The numbers of set-aside files, records and bytes in a folder."""

    files: int
    records: int
    size: int


class Aside:
    """The file of one process in the ring's folder. For one thread.

    Args:
        name: of the process's lane.
        max_bytes: limit of all such files in the folder together.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        self._folder, self._path, self._max_bytes = folder, folder / (name + SUFFIX), max_bytes

    def keep(self, records: Sequence[bytes]) -> int:
        """Write as many of the records as there is space for; return their number. They are on disk on return.

        Raises:
            OSError: the disk takes none of them.
        """
        used, lines = size_of(self._folder), list[bytes]()
        for record in records:
            used += len(record) + 1
            if used > self._max_bytes:
                break
            lines.append(record + b"\n")
        if not lines:
            return 0
        file = self._locked()
        begin = os.fstat(file).st_size
        try:
            data = b"".join(lines)
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, begin)
            raise
        finally:
            os.close(file)
        if not begin:
            sync_folder(self._folder)
        return len(lines)

    def _locked(self) -> int:
        """Open and lock the file. A file that `repost` has just renamed is not used."""
        while True:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file), self._path.stat()):
                        return file
            except OSError:
                os.close(file)
                raise
            os.close(file)


def files_of(folder: Path) -> list[Path]:
    """Return all files of set-aside records, of all processes."""
    return sorted(folder.glob("*" + SUFFIX))


def wait_for_writer(path: Path) -> None:
    """Wait until a process that began to write before the rename has finished. Raises: OSError."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def size_of(folder: Path) -> int:
    """Return the bytes of these files."""
    total = 0
    for path in files_of(folder):
        with contextlib.suppress(FileNotFoundError):  # the file has just been posted again and deleted
            total += path.stat().st_size
    return total


def records_of(path: Path) -> Iterator[bytes]:
    """Yield the records of a file. A line that a crash has truncated is skipped, because its record is still in the
    ring.
    """
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line[:-1]


def kept_in(folder: Path) -> Kept:
    """Count the set-aside records."""
    files = files_of(folder)
    return Kept(len(files), sum(1 for path in files for _ in records_of(path)), size_of(folder))


def sync_folder(folder: Path) -> None:
    """Make the names of new files durable. Raises: OSError."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
