"""A program that receives outgoing webhooks, and the task that sends them: in this process, or in its own process that
a test kills.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

from connectors.config.http_client import HttpClient
from connectors.operations.outgoing_webhooks.announcements import Announcements
from connectors.operations.outgoing_webhooks.delivery import ANSWER_S, MessageSender
from connectors.operations.outgoing_webhooks.endpoints import WebhookTarget
from connectors.operations.outgoing_webhooks.task import OutgoingWebhooks, WebhookMetrics
from connectors.postgres.pool import Database

SECRET, OLDER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@dataclass
class Receiver:
    """Verifies each message with the library of Standard Webhooks, and answers with `status` once it is `open`."""

    url: str = ""
    status: int = 204
    location: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        message = Webhook(SECRET).verify(body, dict(request.headers))
        self.messages.append((request.headers["webhook-id"], message))
        self.arrived.set()
        await self.open.wait()
        return web.Response(status=self.status, headers={"Location": self.location} if self.location else {})

    def types(self) -> list[str]:
        return [message["type"] for _, message in self.messages]


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[Receiver]:
    """Until the block ends."""
    receiver = Receiver()
    receiver.open.set()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()


@dataclass
class Seen:
    """What the task has exported."""

    outcomes: list[str] = field(default_factory=list)
    waiting: int = -1
    disabled: int = -1

    def webhook_attempted(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def webhooks_waiting(self, messages: int, disabled_endpoints: int) -> None:
        self.waiting, self.disabled = messages, disabled_endpoints


def task_of(database: Database, *urls: str, seen: WebhookMetrics | None = None, **rules: Any) -> OutgoingWebhooks:
    """Return the task with these endpoints."""
    sensors, endpoints = seen or Seen(), [WebhookTarget(url) for url in urls]
    sender = MessageSender(HttpClient(ANSWER_S), [SECRET, OLDER], sensors.webhook_attempted)
    announcements = Announcements([endpoint.name for endpoint in endpoints], **rules)
    return OutgoingWebhooks(database, announcements, sender, endpoints, sensors)


async def _once(database_url: str, url: str) -> None:
    with Database(database_url, size=1) as database:
        await task_of(database, url).once()


if __name__ == "__main__":
    asyncio.run(_once(*sys.argv[1:]))
