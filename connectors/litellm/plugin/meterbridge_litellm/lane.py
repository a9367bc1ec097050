"""The files of one process in the ring's folder: records with length and checksum, in segments that are only appended to.

`<name>.<number>.seg` is a segment. `<name>.lane` is locked while the process lives, and has the position up to which all is posted.
A lane whose lock is free belongs to a process that has ended; another process takes the lock and posts what is left.
"""

import contextlib
import fcntl
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

_MAGIC: Final = b"MBu1"
_HEAD: Final = struct.Struct(">4sII")  # magic, length and CRC-32 of the record
#: The records that are read and posted together.
_BATCH_BYTES: Final = 2 << 20
_SUFFIX: Final = ".lane"
_NAMES: Final = 20


class RingPosition(NamedTuple):
    """A place in a lane: the number of a segment, and an offset in it."""

    segment: int
    offset: int


class Batch(NamedTuple):
    """Records, the position behind them, and how many bytes before that are no record."""

    records: list[bytes]
    behind: RingPosition
    damaged: int


def frame(record: bytes) -> bytes:
    """Return a record as it is stored."""
    return _HEAD.pack(_MAGIC, len(record), crc32(record)) + record


def frames(data: bytes, at: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the whole records from offset `at` on, each with the offset behind it. What is damaged is passed over.

    A record is JSON in ASCII, so it cannot contain a head with a length below 2^24, and no damage makes one out of it.
    """
    while (at := data.find(_MAGIC, at)) >= 0 and at + _HEAD.size <= len(data):
        _, length, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if end <= len(data) and crc32(record := data[at + _HEAD.size : end]) == checksum:
            yield record, end
            at = end
        else:
            at += 1


class Lane:
    """A lane that this process has locked. A new name makes a new lane.

    Raises:
        OSError: another process has the lock or has removed the lane, or the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder, self._path = folder, folder / (name + _SUFFIX)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._file), self._path.stat()):
                raise FileNotFoundError(name)
            written = os.pread(self._file, 64, 0).split()
        except OSError:
            os.close(self._file)
            raise
        #: All records up to here are posted. If the note is damaged, all are posted again and recognised as duplicates.
        is_whole = len(written) == 2 and all(part.isdigit() for part in written)
        self.done = RingPosition(*map(int, written)) if is_whole else RingPosition(0, 0)

    def segment(self, number: int) -> Path:
        return self._folder / f"{self.name}.{number:08d}.seg"

    def read(self, most: int, end: RingPosition | None = None) -> Batch:
        """Return the next records that are not posted, all of one segment; no records and a later position: go on from
        there.

        Args:
            most: how many records.
            end: up to where they are durable; None = the process that wrote them has ended.
        """
        for number in self._numbers():
            if number < self.done.segment or (end is not None and number > end.segment):
                continue
            is_open = end is not None and number == end.segment
            data = self.segment(number).read_bytes()[: end.offset if end is not None and is_open else None]
            begin = self.done.offset if number == self.done.segment else 0
            if begin < len(data):
                return self._batch(number, data, begin, most, is_open=is_open)
        return Batch([], self.done, 0)

    def _batch(self, number: int, data: bytes, begin: int, most: int, *, is_open: bool) -> Batch:
        records, behind, size = list[bytes](), begin, 0
        for record, behind in frames(data, begin):  # noqa: B007  # the last one is used
            records.append(record)
            size += _HEAD.size + len(record)
            if len(records) == most or size >= _BATCH_BYTES:
                break
        else:  # the rest of a segment that gets no more records is no record
            behind = behind if is_open else len(data)
        return Batch(records, RingPosition(number, behind), behind - begin - size)

    def posted(self, position: RingPosition) -> int:
        """Note that all up to `position` is posted; the bytes of the segments that this deleted.

        The note is not fsynced: if the machine loses it, records are posted again, and known.
        """
        self.done = position
        os.pwrite(self._file, b"%012d %012d" % position, 0)
        return sum(_deleted(self.segment(number)) for number in self._numbers() if number < position.segment)

    def remove(self) -> None:
        """Delete the lane, of which all is posted, and give up the lock."""
        for number in self._numbers():
            _deleted(self.segment(number))
        self._path.unlink()
        self.close()

    def close(self) -> None:
        os.close(self._file)

    def _numbers(self) -> list[int]:
        numbers = (path.name.split(".")[-2] for path in self._folder.glob(f"{self.name}.*.seg"))
        return sorted(int(number) for number in numbers if number.isascii() and number.isdigit())


def new_lane(folder: Path) -> Lane:
    """Return a lane of a new name. Raises: OSError: the folder cannot be written."""
    for _ in range(_NAMES - 1):
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # a neighbour took it for one that was left
            return Lane(folder, f"{os.getpid()}-{secrets.token_hex(6)}")
    return Lane(folder, f"{os.getpid()}-{secrets.token_hex(6)}")


def ended_lanes(folder: Path, own: frozenset[str]) -> Iterator[Lane]:
    """Lanes of processes that have ended, locked; without the names in `own`."""
    names = {path.name.split(".")[0] for suffix in (_SUFFIX, ".seg") for path in folder.glob("*" + suffix)}
    for name in sorted(names - own):
        try:
            yield Lane(folder, name)
        except OSError:
            continue  # its process lives, or another one has just taken it


def _deleted(path: Path) -> int:
    size = path.stat().st_size
    path.unlink()
    return size
