"""What a Lago sandbox was asked, and whether requests come together."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """The requests below `/api/v1` since `expect`: verb and path, in order of arrival."""

    requests: list[str] = field(default_factory=list)
    _rounds: list[asyncio.Barrier] = field(default_factory=list)

    def expect(self, *rounds: int) -> None:
        """Begin anew, and answer the next requests in rounds.

        Args:
            rounds: how many requests each round has. Requests of a round are answered once all of them have arrived, so
                one whose fellows are sent only after its answer waits until its sender gives up. Requests after the last
                round are answered at once.
        """
        self.requests.clear()
        self._rounds.clear()
        for parties in rounds:
            self._rounds += [asyncio.Barrier(parties)] * parties

    def in_order(self) -> list[str]:
        """Return the requests sorted, because those of a round arrive in any order."""
        return sorted(self.requests)

    @web.middleware
    async def noting(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Note a request; hold it back until its round is complete."""
        if request.path.startswith("/api/v1/"):
            self.requests.append(f"{request.method} {request.path.removeprefix('/api/v1')}")
            if self._rounds:
                await self._rounds.pop(0).wait()
        return await handler(request)
