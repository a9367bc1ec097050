"""Decompresses request bodies (Content-Encoding) after the sender is authenticated, in pieces of bounded size.

aiohttp would decompress while it reads, before the sender is authenticated, and it accepts a truncated gzip stream as a
complete body. So applications are made with `PACKED`.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from connectors.http.problem import CLOSES, Problem

#: `handler_args` of an application: handlers get bodies as they were sent.
PACKED: Final = {"auto_decompress": False}
#: Maximum bytes of a piece; a piece of this size takes a few milliseconds.
STEP: Final = 1 << 20
#: Bytes of the body that zlib gets at once. At the end of a stream zlib copies the rest of them, so a body of many small
#: streams would cost the square of its length.
_WINDOW: Final = 64 << 10
#: The most streams (RFC 1952: members) of one body. A stranger's body is decompressed to check its signature, and each
#: member takes some microseconds but only 20 bytes.
MAX_MEMBERS: Final = 10_000

_GZIP, _DEFLATE = 31, 15
_WINDOWS: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _DEFLATE}
_PLAIN: Final = ("", "identity")
_GZIP_MAGIC = b"\x1f\x8b"
#: The method in the first byte of a zlib stream (RFC 1950); some senders of `deflate` omit the header.
_ZLIB_METHOD = 8


class Unpacker:
    """Decompresses one body.

    Args:
        encoding: the Content-Encoding header; `""` = none.

    Raises:
        Problem: 415: the encoding is not supported.
    """

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in _PLAIN and encoding not in _WINDOWS:
            raise Problem(415, "unknown_encoding", "Content-Encoding may be gzip, x-gzip, deflate or identity", CLOSES)
        self._window = _WINDOWS.get(encoding)
        self._stream: zlib._Decompress | None = None
        self._ended = self._padded = False
        self._members = 0

    @property
    def is_plain(self) -> bool:
        """Whether the body is not compressed."""
        return self._window is None

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the decompressed pieces of a chunk of the body, of at most `STEP` bytes each.

        Raises:
            Problem: 400: the chunk does not have the encoding of the header.
        """
        if self._window is None:
            yield chunk
            return
        for at in range(0, len(chunk), _WINDOW):
            yield from self._pieces(chunk[at : at + _WINDOW], self._window)

    def _pieces(self, chunk: bytes, window: int) -> Iterator[bytes]:
        while chunk:
            if self._ended:
                chunk = self._next_member(chunk)
                continue
            if self._stream is None:
                self._stream = zlib.decompressobj(_window_of(window, chunk))
            try:
                made = self._stream.decompress(chunk, STEP)
            except zlib.error as error:
                raise _bad_encoding() from error
            chunk = self._stream.unconsumed_tail
            if self._stream.eof:
                self._ended, chunk = True, self._stream.unused_data
            if made:
                yield made
            elif chunk and not self._ended:
                raise _bad_encoding()

    def end(self) -> None:
        """Check that the compressed stream is complete. Raises: Problem 400."""
        if self._window is not None and not self._ended:
            raise _bad_encoding()

    def _next_member(self, rest: bytes) -> bytes:
        """Check the bytes after the end of a stream: only another gzip member (RFC 1952, 2.2) or padding with zeros may
        follow.
        """
        if not rest.strip(b"\0"):
            self._padded = True
            return b""
        if self._padded or self._window != _GZIP or not _GZIP_MAGIC.startswith(rest[:2]):
            raise _bad_encoding()
        self._members += 1
        if self._members >= MAX_MEMBERS:
            raise Problem(400, "bad_encoding", f"a gzip body may have {MAX_MEMBERS} members", CLOSES)
        self._stream, self._ended = None, False
        return rest


def _window_of(window: int, first: bytes) -> int:
    return -_DEFLATE if window == _DEFLATE and first[0] & 0x0F != _ZLIB_METHOD else window


def _bad_encoding() -> Problem:
    return Problem(
        400, "bad_encoding", "the body does not have the Content-Encoding of its header, or is truncated", CLOSES
    )
