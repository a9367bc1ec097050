"""Compressed bodies: the cost of decompression is proportional to the body, whatever its sender made of it."""

import gzip
import zlib
from typing import Any

import pytest

from connectors.http import content_encoding
from connectors.http.content_encoding import MAX_MEMBERS, Unpacker
from connectors.http.problem import Problem

EMPTY = gzip.compress(b"")


def unpacked(body: bytes, encoding: str = "gzip") -> bytes:
    unpacker = Unpacker(encoding)
    made = b"".join(unpacker.pieces(body))
    unpacker.end()
    return made


def test_a_body_of_many_members_is_read_up_to_the_limit() -> None:
    assert unpacked(EMPTY * (MAX_MEMBERS - 1) + gzip.compress(b"call")) == b"call"
    with pytest.raises(Problem, match=f"a gzip body may have {MAX_MEMBERS} members") as refused:
        unpacked(EMPTY * MAX_MEMBERS + gzip.compress(b"call"))
    assert (refused.value.status, refused.value.reason) == (400, "bad_encoding")


def test_many_small_members_do_not_cost_the_square_of_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """zlib copies the bytes after the end of each member. 1 MB of empty members once took 0.8 s, and 64 MB an hour, in
    the thread of all senders that sign.
    """
    given, opened = 0, zlib.decompressobj

    class Counted:
        def __init__(self, window: int) -> None:
            self._stream = opened(window)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def decompress(self, chunk: bytes, most: int) -> bytes:
            nonlocal given
            given += len(chunk)
            return self._stream.decompress(chunk, most)

    monkeypatch.setattr(content_encoding.zlib, "decompressobj", Counted)
    members, rest = 1000, gzip.compress(bytes(range(256)) * 16_384, 0)
    assert len(unpacked(EMPTY * members + rest)) == 4 << 20
    assert given < members * 80_000 + 4 * len(rest)


@pytest.mark.parametrize("at", [1, 2, 65_535, 65_536, 65_537])
def test_only_zeros_follow_the_padding_of_a_stream(at: int) -> None:
    assert unpacked(gzip.compress(b"call") + bytes(at)) == b"call"
    for more in (gzip.compress(b"call"), b"x"):
        with pytest.raises(Problem):
            unpacked(gzip.compress(b"call") + bytes(at) + more)
    padding = bytes(at - len(EMPTY)) if at > len(EMPTY) else b""
    assert unpacked(gzip.compress(b"first") + gzip.compress(b"second") + padding) == b"firstsecond"


def test_a_deflate_stream_has_one_member() -> None:
    assert unpacked(zlib.compress(b"call"), "deflate") == b"call"
    with pytest.raises(Problem):
        unpacked(zlib.compress(b"call") * 2, "deflate")
