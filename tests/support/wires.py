"""A server with the product's bounds on connections, and clients that write what they like to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from connectors.http.client_address import ClientAddressPolicy
from connectors.http.connections import BoundedRunner, admitted
from connectors.http.middleware import RequestTracker
from connectors.http.unauthenticated_limits import Bounds, UnauthenticatedConnections
from tests.support.eventually import PATIENCE

HEAD_S = 0.4
CANARY = "c4n4ry"
HEALTH = bytes(60_000)
POST = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}\r\n"


@dataclass
class Wire:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5 * PATIENCE)).decode()
        status, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), 5 * PATIENCE)
        return int(status.split()[1]), headers, body

    async def closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 5 * PATIENCE) == b""


@asynccontextmanager
async def serving(
    bounds: Bounds,
    closed: list[str] | None = None,
    wrong: list[int] | None = None,
    head_s: float = HEAD_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[int]:
    """A server that accepts posts to `/`, and refuses the body of a post to `/refused`; its port."""

    async def take(request: web.Request) -> web.Response:
        admitted(request)
        return web.Response(text=str(len(await request.read())))

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401)

    async def health(_: web.Request) -> web.Response:
        return web.Response(body=HEALTH)

    async def wait(_: web.Request) -> web.Response:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    app = web.Application(middlewares=[RequestTracker().passing])
    app.add_routes([web.get("/wait", wait), web.get("/health", health)])
    app.add_routes([web.post("/", take), web.post("/refused", refuse)])
    on_closed = (closed if closed is not None else []).append
    on_wrong = (wrong if wrong is not None else []).append
    unauthenticated = UnauthenticatedConnections(
        bounds, ClientAddressPolicy((), ()), monotonic, on_closed, lambda: on_wrong(1)
    )
    runner = BoundedRunner(app, head_s, unauthenticated, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Wire(reader, writer)
    writer.close()
