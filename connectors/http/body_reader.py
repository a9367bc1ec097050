"""Reads request bodies in bounded memory: one body has a limit, and all bodies together have another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TypeVar, TypeVarTuple

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING

from connectors.http.content_encoding import Unpacker
from connectors.http.problem import CLOSES, Problem, try_again

_OVERLOAD_RETRY_S = 1
#: A larger body is decompressed in a thread: one kilobyte may become one megabyte.
_WORTH_A_THREAD = 4 << 10
#: A larger body is hashed in a thread.
_HASH_WORTH_A_THREAD = 1 << 20

T = TypeVar("T")
Args = TypeVarTuple("Args")


class BodyReader:
    """Reads bodies, and counts the bytes of those that are not answered yet.

    The body of an unauthenticated sender has a signature, which can be checked only when the body is there. Such bodies get
    half of the memory, and only bytes that have arrived count: otherwise a few senders could announce large bodies and block
    all others. One thread decompresses and hashes these bodies, and keeps no decompressed byte before the sender is
    known.

    Args:
        max_body_bytes: limit of one decompressed body.
        max_bytes_in_flight: limit of all bodies that are being read or stored.
    """

    def __init__(self, max_body_bytes: int, max_bytes_in_flight: int) -> None:
        self._max_body = max_body_bytes
        self._max_in_flight = max_bytes_in_flight
        self._unauthenticated = 0
        self._beside: Executor = ThreadPoolExecutor(1, "unauthenticated")
        self.bytes_in_flight = 0

    async def read(
        self,
        request: web.Request,
        *,
        unauthenticated: bool = False,
        prove: Callable[[bytes | Iterable[bytes]], None] | None = None,
    ) -> bytes:
        """Return the whole decompressed body; it counts as in flight until `release(body)`.

        Args:
            unauthenticated: the sender is not authenticated while the body is read.
            prove: called with the decompressed body, or its pieces, maybe in a thread; raises if it does not prove who sent it.
                The sender is authenticated only after it returns.

        Raises:
            Problem: 413 too large (before reading if Content-Length says so), 415 unknown encoding, 400 not decodable, 503 too
                many bytes in flight; and what `prove` raises.
        """
        unauthenticated = unauthenticated or prove is not None
        encoding = request.headers.get(CONTENT_ENCODING)
        unpacker = Unpacker(encoding) if encoding else None
        held = size = 0
        announced = request.content_length or 0
        chunks: list[bytes] = []
        content = request.content
        try:
            if unauthenticated:
                self._check(announced)
            else:
                held += self._hold(0, announced)
            while not content.at_eof():
                chunk = await content.readany()
                size += len(chunk)
                if size > held:
                    held += self._hold(held, size, unauthenticated=unauthenticated)
                chunks.append(chunk)
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if prove is not None:
                if unpacker is None and len(body) < _HASH_WORTH_A_THREAD:
                    prove(body)
                else:
                    await self._prove_beside(prove, encoding or "", body)
                self._unauthenticated -= held
                unauthenticated = False
            if unpacker is not None and not unpacker.is_plain:
                chunks, unpacked = [], 0
                async for piece in _unpacked(unpacker, body, self._beside if unauthenticated else None):
                    unpacked += len(piece)
                    self._check(unpacked)
                    if size + unpacked > held:
                        held += self._hold(held, size + unpacked, unauthenticated=unauthenticated, limited=False)
                    chunks.append(piece)
                body = b"".join(chunks)
                self._give_back(held - unpacked, unauthenticated=unauthenticated)
                held = unpacked
        except web.RequestPayloadError as error:
            self.bytes_in_flight -= held
            raise Problem(400, "bad_encoding", "the body does not match its headers", CLOSES) from error
        except BaseException:
            self.bytes_in_flight -= held
            raise
        finally:
            if unauthenticated:
                self._unauthenticated -= held
        return body

    async def beside(self, do: Callable[[*Args], T], *args: *Args) -> T:
        """Run `do(*args)` in the thread that all unauthenticated senders share."""
        return await asyncio.get_running_loop().run_in_executor(self._beside, partial(do, *args))

    async def _prove_beside(self, prove: Callable[[bytes | Iterable[bytes]], None], encoding: str, body: bytes) -> None:
        unpacker = Unpacker(encoding)
        await self.beside(prove, body if unpacker.is_plain else self._pieces_for_proof(unpacker, body))

    def _pieces_for_proof(self, unpacker: Unpacker, body: bytes) -> Iterator[bytes]:
        unpacked = 0
        for piece in unpacker.pieces(body):
            unpacked += len(piece)
            self._check(unpacked)
            yield piece
        unpacker.end()

    def release(self, body: bytes) -> None:
        """Give back the memory of this body, because its request was answered."""
        self.bytes_in_flight -= len(body)

    def _check(self, needed: int) -> None:
        if needed > self._max_body:
            raise Problem(413, "body_too_large", f"a body may have {self._max_body} bytes")

    def _give_back(self, count: int, *, unauthenticated: bool) -> None:
        self.bytes_in_flight -= count
        if unauthenticated:
            self._unauthenticated -= count

    def _hold(self, held: int, needed: int, *, unauthenticated: bool = False, limited: bool = True) -> int:
        """Reserve the bytes by which `needed` exceeds `held`; return their number.

        Args:
            limited: `needed` is the size of one body, so the limit of one body applies; False: `needed` is the size of
                a body before and after decompression together.
        """
        if limited:
            self._check(needed)
        more = max(0, needed - held)
        full = unauthenticated and self._unauthenticated + more > self._max_in_flight // 2
        if full or self.bytes_in_flight + more > self._max_in_flight:
            raise try_again("overloaded", "too many bytes of requests are in flight", _OVERLOAD_RETRY_S)
        self.bytes_in_flight += more
        if unauthenticated:
            self._unauthenticated += more
        return more


async def _unpacked(unpacker: Unpacker, body: bytes, beside: Executor | None) -> AsyncIterator[bytes]:
    """Yield the decompressed pieces of the body; a large body is decompressed in a thread. Raises: Problem 400.

    Args:
        beside: the executor of the thread; None = the event loop's default.
    """
    pieces = unpacker.pieces(body)
    loop = asyncio.get_running_loop()
    in_a_thread = len(body) > _WORTH_A_THREAD
    while (piece := await loop.run_in_executor(beside, _next, pieces) if in_a_thread else _next(pieces)) is not None:
        yield piece
    unpacker.end()


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
