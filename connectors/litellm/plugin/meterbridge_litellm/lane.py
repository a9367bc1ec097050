"""The files of one process in the ring's folder: append-only segments of records with length and checksum.

`<name>.<number>.seg` is a segment. `<name>.lane` is locked while the process lives, and contains the position up to
which all records are posted. If the lock is free, the process has ended; another process takes the lock and posts the
remaining records.
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
    """Records, the position after them, and the number of bytes before that position that are not records."""

    records: list[bytes]
    behind: RingPosition
    damaged: int


def frame(record: bytes) -> bytes:
    """Return a record as it is stored."""
    return _HEAD.pack(_MAGIC, len(record), crc32(record)) + record


def frames(data: bytes, at: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the complete records from offset `at` on, each with the offset after it. Damaged bytes are skipped.

    A record is JSON in ASCII, so it cannot contain a record header with a length below 2^24, and damage cannot produce
    one.
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
    """A lane that this process has locked. For a new name, a new lane is made.

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
        #: All records up to here are posted. If this position is damaged, all records are posted again and recognised
        #: as duplicates.
        is_whole = len(written) == 2 and all(part.isdigit() for part in written)
        self.done = RingPosition(*map(int, written)) if is_whole else RingPosition(0, 0)

    def segment(self, number: int) -> Path:
        return self._folder / f"{self.name}.{number:08d}.seg"

    def read(self, most: int, end: RingPosition | None = None) -> Batch:
        """Return the next records that are not posted, all from one segment. If there are no records but a later
        position, continue from there.

        Args:
            most: the maximum number of records.
            end: the end of the durable records; None = the process that wrote them has ended.
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
        else:  # if a segment gets no more records, its remaining bytes are not a record
            behind = behind if is_open else len(data)
        return Batch(records, RingPosition(number, behind), behind - begin - size)

    def posted(self, position: RingPosition) -> int:
        """Store that all records up to `position` are posted; return the bytes of the deleted segments.

        The position is not fsynced: if the machine loses it, records are posted again and recognised as duplicates.
        """
        self.done = position
        os.pwrite(self._file, b"%012d %012d" % position, 0)
        return sum(_deleted(self.segment(number)) for number in self._numbers() if number < position.segment)

    def remove(self) -> None:
        """Delete the lane after all its records are posted, and release the lock."""
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
        with contextlib.suppress(
            BlockingIOError, FileNotFoundError
        ):  # another process mistook it for the lane of an ended process
            return Lane(folder, f"{os.getpid()}-{secrets.token_hex(6)}")
    return Lane(folder, f"{os.getpid()}-{secrets.token_hex(6)}")


def ended_lanes(folder: Path, own: frozenset[str]) -> Iterator[Lane]:
    """Lock and return the lanes of ended processes, without the names in `own`."""
    names = {path.name.split(".")[0] for suffix in (_SUFFIX, ".seg") for path in folder.glob("*" + suffix)}
    for name in sorted(names - own):
        try:
            yield Lane(folder, name)
        except OSError:
            continue  # its process lives, or another process has just locked it


def _deleted(path: Path) -> int:
    size = path.stat().st_size
    path.unlink()
    return size
