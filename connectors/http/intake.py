"""A request's body is read in bounded memory and time: one body has its limits, all of them together another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from connectors.http.problem import Problem, try_again

#: What aiohttp undoes while it reads, in bounded steps; anything else would arrive unread.
_ENCODINGS = {"", "identity", "gzip", "deflate"}
_OVERLOAD_RETRY_S = 1
#: Nothing that follows on this connection can be read.
_LAST = {"Connection": "close"}


class Intake:
    """Reads bodies and counts the bytes of those that are not answered yet.

    Args:
        max_body_bytes: of one body, after any Content-Encoding is undone.
        max_bytes_in_flight: of all bodies being read or stored.
    """

    def __init__(self, max_body_bytes: int, max_bytes_in_flight: int) -> None:
        self._max_body = max_body_bytes
        self._max_in_flight = max_bytes_in_flight
        self.bytes_in_flight = 0

    @asynccontextmanager
    async def body(self, request: web.Request, deadline: float) -> AsyncIterator[bytes]:
        """The whole body, in flight until the block is left.

        Args:
            deadline: by the event loop's clock; a body that is not here by then is given up.

        Raises:
            Problem: 413 too large (known from Content-Length before reading), 415 unknown encoding,
                400 undecodable, 408 too slow, 503 too much in flight.
        """
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise Problem(415, "unknown_encoding", "Content-Encoding may be gzip, deflate or identity")
        held = 0
        try:
            held += self._hold(0, 0 if encoding else request.content_length or 0)
            chunks: list[bytes] = []
            size = 0
            async with asyncio.timeout_at(deadline):
                while not request.content.at_eof():
                    chunk = await request.content.readany()
                    size += len(chunk)
                    held += self._hold(held, size)
                    chunks.append(chunk)
            whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise Problem(408, "body_too_slow", "the body did not arrive in time", _LAST) from None
        except web.RequestPayloadError as error:
            raise Problem(400, "bad_encoding", "the body is not what its headers say", _LAST) from error
        else:
            yield whole
        finally:
            self.bytes_in_flight -= held

    def _hold(self, held: int, needed: int) -> int:
        """Reserve what `needed` bytes take beyond `held`; returns how many bytes that were."""
        if needed > self._max_body:
            raise Problem(413, "body_too_large", f"a body may have {self._max_body} bytes")
        more = max(0, needed - held)
        if self.bytes_in_flight + more > self._max_in_flight:
            raise try_again("overloaded", "too much is being stored at once", _OVERLOAD_RETRY_S)
        self.bytes_in_flight += more
        return more
