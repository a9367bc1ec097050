"""Sends the waiting messages: at least once, for five days, and one at a time to an endpoint that fails.

Before an attempt, a transaction of its own sets the time of the next attempt. A process that is killed after the
response, and before it is stored, sends the same message again with the same id.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httpx
import structlog

from connectors.operations.outgoing_webhooks.endpoints import WebhookTarget, headers_of
from connectors.postgres.pool import Database

#: The time limit of one request, seconds.
ANSWER_S: Final = 15.0
#: Waits after the first, second ... failed attempt, seconds. The last wait repeats.
WAITS_S: Final = (5, 60, 300, 1800, 7200, 18_000, 36_000)
#: Time after which a message is given up, and an endpoint that never succeeds is disabled, seconds.
GIVE_UP_S: Final = 5 * 86_400
#: For how long no other process sends a message that is being sent, seconds.
_LEASE_S: Final = 120
#: The most messages to one endpoint in one round; for how many seconds it gets further messages in this round, so that a
#: slow endpoint does not delay the others; and how long finished messages are kept, days.
_ROUND: Final = 100
_TURN_S: Final = 15.0
_KEPT_DAYS: Final = 30

_TAKE: Final = """
UPDATE outgoing_webhooks SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
WHERE (endpoint, message_id) = (
    SELECT endpoint, message_id FROM outgoing_webhooks
    WHERE endpoint = $1 AND ended_at IS NULL AND due_at <= now() ORDER BY due_at, message_id LIMIT 1 FOR UPDATE SKIP LOCKED
) AND NOT EXISTS (SELECT FROM webhook_endpoints WHERE endpoint = $1 AND disabled_at IS NOT NULL)
RETURNING message_id, body, attempts
"""
_SENT: Final = """
UPDATE outgoing_webhooks SET ended_at = now(), outcome = 'sent', last_status = $3 WHERE endpoint = $1 AND message_id = $2
"""
_FAILED: Final = """
UPDATE outgoing_webhooks SET
    last_status = $3, due_at = now() + make_interval(secs => $4),
    ended_at = CASE WHEN created_at < now() - make_interval(secs => $5) THEN now() END,
    outcome = CASE WHEN created_at < now() - make_interval(secs => $5) THEN 'given_up' END
WHERE endpoint = $1 AND message_id = $2
RETURNING outcome IS NOT NULL
"""
#: When an endpoint answers again, its waiting messages are sent at once, without the remaining waits.
_WELL: Final = """
WITH was AS (DELETE FROM webhook_endpoints WHERE endpoint = $1 RETURNING endpoint)
UPDATE outgoing_webhooks AS w SET due_at = now() FROM was
WHERE w.endpoint = was.endpoint AND w.ended_at IS NULL AND w.attempts > 0 AND w.due_at > now()
"""
_ILL: Final = """
INSERT INTO webhook_endpoints AS e (endpoint, failing_since, reason, disabled_at)
VALUES ($1, now(), $2, CASE WHEN $3 THEN now() END)
ON CONFLICT (endpoint) DO UPDATE SET
    reason = EXCLUDED.reason,
    disabled_at = COALESCE(e.disabled_at, CASE WHEN $3 OR e.failing_since < now() - make_interval(secs => $4) THEN now() END)
RETURNING disabled_at IS NOT NULL AS is_disabled
"""
_PRUNE: Final = "DELETE FROM outgoing_webhooks WHERE ended_at < now() - make_interval(days => $1)"
_STATE: Final = """
SELECT
    (SELECT count(*) FROM outgoing_webhooks WHERE ended_at IS NULL AND endpoint = ANY($1::text[])) AS waiting,
    (SELECT count(*) FROM webhook_endpoints WHERE disabled_at IS NOT NULL AND endpoint = ANY($1::text[])) AS disabled
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MessageSender:
    """Posts messages.

    Fields:
        http: must not follow redirects: a signed body must not go to an address that the operator has not set.
        secrets: values like `whsec_...`, the newest first.
        counted: called with the outcome of each attempt: `sent`, `failed` or `given_up`.
        now_s: seconds since 1970 UTC.
        monotonic: seconds.
    """

    http: httpx.AsyncClient
    secrets: Sequence[str] = field(repr=False)
    counted: Callable[[str], None] = lambda _outcome: None
    now_s: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    async def post(self, endpoint: WebhookTarget, message_id: str, body: bytes) -> int:
        """Make one attempt; return the status of the response, 0 = none came in time. The body of the response is not
        read.
        """
        headers = headers_of(message_id, int(self.now_s()), body, self.secrets)
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self.http.stream("POST", endpoint.url, content=body, headers=headers) as answer,
            ):
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            log.info("webhook_unanswered", host=endpoint.host, error=type(error).__name__)
            return 0

    async def send_due(self, database: Database, endpoints: Sequence[WebhookTarget]) -> None:
        """Send the messages that are due. An endpoint that fails gets one attempt, a slow one those of its turn. Raises:
        Unavailable.
        """
        for endpoint in endpoints:
            ends_s = self.monotonic() + _TURN_S
            for _ in range(_ROUND):
                if not await self._send_one(database, endpoint) or self.monotonic() >= ends_s:
                    break

    async def _send_one(self, database: Database, endpoint: WebhookTarget) -> bool:
        """Send the next message that is due; False = there is none, or the attempt failed."""
        async with database.connection() as connection:
            taken = await connection.fetchrow(_TAKE, endpoint.name, _LEASE_S)
        if taken is None:
            return False
        status = await self.post(endpoint, taken["message_id"], taken["body"].encode())
        async with database.connection() as connection, connection.transaction():
            return await self._entered(connection, endpoint, taken, status)

    async def _entered(self, connection: Any, endpoint: WebhookTarget, taken: Any, status: int) -> bool:
        """Store the outcome of an attempt; return whether it succeeded."""
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            await connection.execute(_SENT, endpoint.name, taken["message_id"], status)
            await connection.execute(_WELL, endpoint.name)
            self.counted("sent")
            return True
        wait = WAITS_S[min(taken["attempts"], len(WAITS_S)) - 1] * random.uniform(1, 1.25)
        ended = await connection.fetchval(_FAILED, endpoint.name, taken["message_id"], status, wait, GIVE_UP_S)
        reason = f"http_{status}" if status else "no_answer"
        is_disabled = await connection.fetchval(_ILL, endpoint.name, reason, status == HTTPStatus.GONE, GIVE_UP_S)
        self.counted("given_up" if ended else "failed")
        log.warning(
            "webhook_not_taken", host=endpoint.host, reason=reason, attempt=taken["attempts"], is_disabled=is_disabled
        )
        return False


async def enable(database: Database, endpoint: WebhookTarget) -> None:
    """Enable a disabled endpoint, and make its waiting messages due at once. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute(_WELL, endpoint.name)


async def state_of(database: Database, endpoints: Sequence[WebhookTarget]) -> tuple[int, int]:
    """Count the waiting messages and the disabled endpoints. Old finished messages are deleted. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute(_PRUNE, _KEPT_DAYS)
        row = await connection.fetchrow(_STATE, [endpoint.name for endpoint in endpoints])
    return row["waiting"], row["disabled"]
