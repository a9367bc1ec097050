"""A TCP relay that can be disconnected or made slow, like a network."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Relay:
    """Forwards the bytes of each connection to `target`, a port of this machine.

    Fields:
        bytes_per_s: how many it passes back on one connection in a second; 0 = as many as come.
    """

    def __init__(self, target: int) -> None:
        self.bytes_per_s = 0
        self._target = target
        self._is_cut = False
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """End all connections, and refuse further ones."""
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def fix(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        ends = [writer]
        with contextlib.suppress(OSError):
            if not self._is_cut:
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                ends.append(back)
                self._open.update(ends)
                await asyncio.gather(self._copied(reader, back), self._copied(there, writer, back=True))
        self._open.difference_update(ends)
        for end in ends:
            end.close()

    async def _copied(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        while data := await reader.read(self.bytes_per_s or 1 << 16):
            writer.write(data)
            await writer.drain()
            if back and self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
        writer.close()


@contextlib.asynccontextmanager
async def relay(port: int, target: int) -> AsyncIterator[Relay]:
    """Listens at `port` until the block ends."""
    created = Relay(target)
    server = await asyncio.start_server(created.serve, "127.0.0.1", port)
    try:
        yield created
    finally:
        server.close()
        created.cut()
