"""A connection to Lago that dies: at the n-th request, before it is sent or with its answer lost."""

import httpx

from connectors.lago.client import LagoClient
from tests.support.sandbox import KEY

#: Seconds, as short as a product's setting may be: slow answers of Lago in these tests exceed it or do not.
_LAGO_TIMEOUT_S = 5


class Killed(BaseException):
    """Simulates the end of the process: nothing catches it."""


class MortalWire(httpx.AsyncBaseTransport):
    """Passes requests on, and records them, until it dies.

    Args:
        dies_at: number of the fatal request, from 1; None: the connection never dies.
        sent: whether Lago still receives the fatal request.
    """

    def __init__(self, dies_at: int | None = None, *, sent: bool = False) -> None:
        self.requests: list[tuple[str, str]] = []
        self._dies_at = dies_at
        self._sent = sent
        self._real = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises: Killed."""
        self.requests.append((request.method, request.url.path))
        fatal = self._dies_at is not None and len(self.requests) >= self._dies_at
        if fatal and not self._sent:
            raise Killed
        response = await self._real.handle_async_request(request)
        if fatal:
            await response.aread()
            raise Killed
        return response

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._real.aclose()

    def client(self, url: str) -> LagoClient:
        """Return a client of ours over it."""
        return LagoClient(httpx.AsyncClient(transport=self, timeout=_LAGO_TIMEOUT_S), url, KEY)
