"""A relay between a client and a server on loopback that a test can disconnect, stop, or make slow."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.ports import free_port

_CHUNK = 64 << 10
#: Closing with this option sends RST and drops what was not sent yet.
_AT_ONCE = struct.pack("ii", 1, 0)


class Wire:
    """Listens on `port` and passes bytes on to `to_port`.

    Attributes:
        passing: while it is not set, nothing moves in either direction and nothing is closed: a black hole.
        opened: connections so far.
    """

    def __init__(self, to_port: int, port: int | None = None) -> None:
        self.port = port or free_port()
        self.opened = 0
        self.passing = asyncio.Event()
        self.passing.set()
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._ways: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def join(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Reset every connection and refuse new ones, until `join`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.reset()

    async def reset(self) -> None:
        """Reset every present connection; new ones pass."""
        for end in list(self._ends):
            raw = end.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:  # uvloop has no socket, or a closed one, for a closed connection
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            end.transport.abort()
        ways = list(self._ways)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.opened += 1
        ends = {to_client}
        self._ends |= ends
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._to_port)
            ends.add(to_server)
            self._ends |= ends
            ways = {asyncio.ensure_future(self._pass(*way)) for way in ((client, to_server), (server, to_client))}
            self._ways |= ways
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            self._ways -= ways
        except OSError:
            pass  # nothing listens behind: for the client a refused connection and one that ends are the same
        finally:
            self._ends -= ends
            for end in ends:
                end.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                await self.passing.wait()
                sink.write(data)
                await sink.drain()


@asynccontextmanager
async def wire(to_port: int, port: int | None = None) -> AsyncIterator[Wire]:
    """Yield a wire that is up; cut at the end."""
    one = Wire(to_port, port)
    await one.join()
    try:
        yield one
    finally:
        await one.cut()
