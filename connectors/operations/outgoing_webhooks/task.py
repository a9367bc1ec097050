"""Queues and sends outgoing webhooks beside the projector, in each of its processes. A lock on each message divides the
work.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from connectors.operations.background_task import watch
from connectors.operations.outgoing_webhooks.announcements import Announcements
from connectors.operations.outgoing_webhooks.delivery import MessageSender, state_of
from connectors.operations.outgoing_webhooks.endpoints import WebhookTarget
from connectors.postgres.pool import Database
from streams.runtime.cancellation import is_own_cancellation

#: Period of the task, seconds.
EVERY_S: Final = 5.0
#: After a look, the next one waits for this multiple of its duration, because Postgres reads all held, failed and
#: prepaid rows.
_RESTS: Final = 19


class WebhookMetrics(Protocol):
    """Exports the state of the outgoing webhooks."""

    def webhooks_waiting(self, messages: int, disabled_endpoints: int) -> None: ...
    def webhook_attempted(self, outcome: str) -> None: ...


@dataclass(slots=True)
class OutgoingWebhooks:
    """Queues and sends messages. Each process has one instance; `sleep` takes seconds, `monotonic` returns seconds."""

    database: Database
    announcements: Announcements
    sender: MessageSender
    endpoints: Sequence[WebhookTarget]
    sensors: WebhookMetrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    _looks_s: float = field(default=0.0, init=False)

    async def watch(self) -> None:
        """Run `once` periodically until cancelled. An expected error is logged, once for each cause, and retried.

        The connections are closed only if the task is cancelled. After an error `kept_up` starts it again with the same
        client.
        """
        try:
            await watch(
                self.once,
                self.sleep,
                EVERY_S,
                waits="outgoing_webhooks_wait",
                refused=lambda: self.sensors.webhook_attempted("error"),
            )
        except asyncio.CancelledError as error:
            if is_own_cancellation(error):
                await self.sender.http.aclose()
            raise

    async def once(self) -> None:
        """Queue new messages, send those that are due, and export how many wait. Messages are sent even if the look for
        changes fails.

        Raises:
            Unavailable
        """
        try:
            if self.monotonic() >= self._looks_s:
                await self._look()
        finally:
            await self.sender.send_due(self.database, self.endpoints)
            self.sensors.webhooks_waiting(*await state_of(self.database, self.endpoints))

    async def _look(self) -> None:
        began_s = self.monotonic()
        try:
            await self.announcements.look(self.database)
        finally:
            now_s = self.monotonic()
            self._looks_s = now_s + _RESTS * (now_s - began_s)
