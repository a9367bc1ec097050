"""Lago Cloud's limits on an organization's requests: windows of one second, with headers in every answer.

Source: the page *Rate limits* of Lago's documentation. Three points are assumptions: that windows begin on whole
seconds, that a batch counts as one request, and the body of the refusal.
"""

from collections.abc import Awaitable, Callable
from math import ceil, floor

from aiohttp import web
from aiohttp.typedefs import Middleware

from connectors.lago_sandbox.answers import json_answer

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SandboxLimit:
    """A number of requests a second for all clients together; the clock is an argument, seconds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.refused = 0
        self._window = 0
        self._used = 0

    def take(self, now: float) -> bool:
        """Count a request; False when this second's requests are used up."""
        if floor(now) != self._window:
            self._window, self._used = floor(now), 0
        if self._used >= self.most:
            self.refused += 1
            return False
        self._used += 1
        return True

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers of an answer; the reset in whole seconds, rounded up."""
        used = self._used if floor(now) == self._window else 0
        reset_s = ceil(floor(now) + 1 - now)
        values = {"Limit": self.most, "Remaining": self.most - used, "Reset": reset_s}
        return {f"X-RateLimit-{name}": str(value) for name, value in values.items()}


class SandboxLimits:
    """The three classes of requests with their limits, in Lago Cloud's proportions of 500, 200 and 50."""

    def __init__(self, ingest: int) -> None:
        self.ingest = SandboxLimit(ingest)
        self.usage = SandboxLimit(max(1, ingest * 2 // 5))
        self.others = SandboxLimit(max(1, ingest // 10))

    def of(self, method: str, path: str) -> SandboxLimit:
        """Return the limit that applies to this request."""
        if method == "POST" and path.startswith("/api/v1/events"):
            return self.ingest
        return self.usage if path.endswith("/current_usage") else self.others

    @property
    def refused(self) -> int:
        """Requests answered 429 so far."""
        return self.ingest.refused + self.usage.refused + self.others.refused


def limiting(limits: SandboxLimits, clock: Callable[[], float]) -> Middleware:
    """Counts requests below `/api/v1/`, whatever their answers; answers 429 above the limit."""

    @web.middleware
    async def limiting(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if not request.path.startswith("/api/v1/"):
            return await handler(request)
        limit = limits.of(request.method, request.path)
        response: web.StreamResponse
        if limit.take(clock()):
            response = await handler(request)
        else:
            response = json_answer({"status": 429, "error": "Too Many Requests"}, 429)
        response.headers.update(limit.headers(clock()))
        return response

    return limiting
