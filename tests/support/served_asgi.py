"""An ASGI application behind a real server, on a loopback port."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, so that the test keeps its own signal handlers."""
        yield


@asynccontextmanager
async def served_asgi(app: Any) -> AsyncIterator[str]:
    """Yield the address of a running application; its lifespan begins before the block and ends with it."""
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="on", log_level="critical"))
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        assert not task.done(), task.result()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
