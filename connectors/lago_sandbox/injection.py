"""Executes faults: answers, delays, damages or truncates a response as the rule says."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from msgspec import UNSET

from connectors.lago_sandbox.answers import json_answer
from connectors.lago_sandbox.faults import Rule
from connectors.lago_sandbox.refusals import SandboxRefusal

Handle = Callable[[], Awaitable[web.StreamResponse]]


class Injection:
    """Runs a request under a rule; the shutdown of the sandbox ends every wait."""

    def __init__(self) -> None:
        self._closing = asyncio.Event()

    async def close(self, _: web.Application) -> None:
        """End every wait: the sandbox is shutting down."""
        self._closing.set()

    async def run(self, request: web.Request, rule: Rule | None, handle: Handle) -> web.StreamResponse:
        """Handle the request, or fail as the rule says."""
        match rule:
            case None:
                return await handle()
            case Rule(kind="status" | "poison"):
                return _failed(rule)
            case Rule(kind="slow"):
                await self.wait(rule.seconds)
                return await handle()
            case Rule(kind="garbage_200"):
                if rule.stored:
                    await _unanswered(handle)
                return web.Response(text="<html><body>ok</body></html>", content_type="text/html")
            case Rule(kind="truncate"):
                return await self._in_pieces(request, await handle(), until=0.5, seconds=0)
            case Rule(kind="trickle"):
                return await self._in_pieces(request, await handle(), until=1, seconds=rule.seconds)
            case Rule(kind="drop"):
                return _cut(request)
            case Rule(kind="drop_after_accept"):
                await _unanswered(handle)
                return _cut(request)
            case _:
                await _unanswered(handle)
                await self.wait(rule.seconds)
                return _cut(request)

    async def _in_pieces(
        self, request: web.Request, answer: web.StreamResponse, until: float, seconds: float
    ) -> web.StreamResponse:
        """Announce the answer's full length and send the share `until` of it, over so many seconds."""
        body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
        pieces = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        pieces.content_length = len(body)
        await pieces.prepare(request)
        sent = body[: int(len(body) * until)]
        for at in range(0, len(sent), 1 if seconds else max(len(sent), 1)):
            await pieces.write(sent[at : at + 1] if seconds else sent)
            await self.wait(seconds / len(sent))
        return pieces if until == 1 else _cut(request)

    async def wait(self, seconds: float) -> None:
        """Wait so many seconds, or until the shutdown."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


def _failed(rule: Rule) -> web.Response:
    body = {"status": rule.status, "error": "Injected Fault"} if rule.body is UNSET else rule.body
    return json_answer(body, rule.status, rule.headers)


async def _unanswered(handle: Handle) -> None:
    with suppress(SandboxRefusal):  # a refusal is also a response, so it is lost too
        await handle()


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # never sent: the connection is closed
