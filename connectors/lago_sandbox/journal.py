"""An append-only file of the accepted changes, one JSON line a request, so that a restart keeps them.

Each line is passed to the operating system at once and never fsynced: it survives a crash of the process, but not of
the machine.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec


class JournalEntry(msgspec.Struct, array_like=True):
    """One accepted change.

    Fields:
        op: its name, see `Sandbox`.
        at_us: when it was accepted, microseconds since 1970 UTC.
        body: the body of the request.
    """

    op: str
    at_us: int
    body: msgspec.Raw


_entry = msgspec.json.Decoder(JournalEntry)


class Journal:
    """Reads the file once, then appends to it; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def replay(self) -> Iterator[JournalEntry]:
        """Yield every entry, oldest first. A last line that a kill cut short is removed from the file."""
        if self._path is None:
            return
        whole = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    yield _entry.decode(line)
        self._file = self._path.open("ab")
        self._file.truncate(whole)

    def write(self, op: str, at_us: int, body: Any) -> None:
        """Append one change."""
        if self._file is not None:
            self._file.write(msgspec.json.encode((op, at_us, body)) + b"\n")
            self._file.flush()

    def clear(self) -> None:
        """Remove every entry."""
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
