"""Receives Lago's webhooks. The response is 2xx only when the effect is durable, because after 2xx Lago does not send
the webhook again.

Lago sends a webhook up to three times within half a minute, always with the same unique key. This process remembers the
keys. A repeat that arrives at another process has no further effect (connectors/billing/lago_webhooks.py).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web
from pydantic import BaseModel

from connectors.billing.lago_webhooks import Payload, WebhookHandlers, kind_of
from connectors.http.body_reader import BodyReader
from connectors.http.connections import admitted
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.error_answers import as_problem
from connectors.http.health import json_response
from connectors.http.problem import CLOSES, Problem
from connectors.kafka.producer import RecordWriter
from connectors.lago.webhook_signatures import UNIQUE_KEY, check_signature, check_signed
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected, Unavailable
from schemas.reasons import REPEATED_WEBHOOK
from schemas.records import DeliveryAttempt

PATH: Final = "/webhooks/lago"
#: Bytes of one webhook: `events.errors` may name every event of an hour.
MAX_BYTES: Final = 16 << 20
#: Bytes of all webhooks in flight. Half of them are for bodies whose signature is not checked yet.
_IN_FLIGHT: Final = 8 * MAX_BYTES
_BODY_S: Final = 30.0
_WORTH_A_THREAD: Final = 1 << 20
#: How many unique keys the process remembers.
_KEYS: Final = 10_000
_KEY_CHARS: Final = 64

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class WebhookResult(BaseModel):
    """The result of a webhook: `applied`, `ignored`, `noted`, `unknown` or `repeated`.

    Fields:
        status: `applied`, `ignored`, `noted`, `unknown` or `repeated`.
    """

    status: str


class WebhookSender(NamedTuple):
    """A Lago organisation: the handler of its webhooks, and the keys with which it signs them."""

    handlers: WebhookHandlers
    secrets: Sequence[str]


class LagoWebhooks:
    """The receiver of one process.

    Args:
        senders: the signature of a webhook shows its sender, so no two senders have a common key. Without any key,
            every webhook is refused.
        topic: where each attempt is recorded, with its prefix.
        with_problem_answers: called with a webhook's type and its result, or the reason of its refusal.
        now_us: microseconds since 1970 UTC.
    """

    def __init__(
        self,
        senders: Sequence[WebhookSender],
        writer: RecordWriter,
        topic: str,
        count: Callable[[str, str], None],
        now_us: Callable[[], int],
    ) -> None:
        self._senders = senders
        self._secrets = [secret for sender in senders for secret in sender.secrets]
        self._writer = writer
        self._topic = topic
        self._count = count
        self._now_us = now_us
        self._done: OrderedDict[str, int] = OrderedDict()
        self._intake = BodyReader(MAX_BYTES, _IN_FLIGHT)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoint `POST /webhooks/lago`."""
        summary = "Lago's webhooks, signed by HMAC under LAGO_WEBHOOK_SECRET."
        return [Endpoint("POST", PATH, "", summary, self._post, answers={200: WebhookResult})]

    async def _post(self, authorized: AuthorizedRequest) -> web.Response:
        if not self._secrets:
            raise Problem(501, "no_webhook_secret", "LAGO_WEBHOOK_SECRET is not set, so no webhook of Lago is accepted")
        started, headers = time.monotonic(), authorized.request.headers
        body = await self._read(authorized.request)
        try:
            # Hashing a large body would block the event loop; for a small body, a thread costs more.
            if len(body) < _WORTH_A_THREAD:
                signed_with = check_signature(headers, body, self._secrets)
            else:
                signed_with = await self._intake.beside(check_signature, headers, body, self._secrets)
            admitted(authorized.request)
        except Rejected as refusal:
            raise Problem(401, refusal.reason, refusal.detail) from refusal
        finally:
            self._intake.release(body)
        payload, key = _read(body), headers.get(UNIQUE_KEY, "")[:_KEY_CHARS]
        sender = next(one for one in self._senders if signed_with in one.secrets)
        outcome = await self._taken(sender.handlers, payload, key, started)
        self._count(kind_of(payload), outcome)
        return json_response({"status": outcome})

    async def _read(self, request: web.Request) -> bytes:
        """Return the body of a request that has a signature, which is not checked yet. Raises: Problem 401, 408, 413,
        503.
        """
        try:
            check_signed(request.headers)
        except Rejected as refusal:
            raise Problem(401, refusal.reason, refusal.detail, CLOSES) from refusal
        try:
            async with asyncio.timeout(_BODY_S):
                return await self._intake.read(request, unauthenticated=True)
        except TimeoutError:
            raise Problem(408, "body_too_slow", "the body did not arrive in time", CLOSES) from None

    async def _taken(self, handlers: WebhookHandlers, payload: Payload, key: str, started: float) -> str:
        repeats = self._done.get(key, 0) if key else 0
        try:
            outcome = REPEATED_WEBHOOK if repeats else await handlers.handle(payload)
        except (Rejected, Unavailable) as error:
            self._count(kind_of(payload), error.reason)
            await self._record(payload, key, as_problem(error).status, error.reason, 1, started)
            raise
        await self._record(payload, key, 200, "", repeats + 1, started)
        if key:
            self._done[key] = repeats + 1
            self._done.move_to_end(key)
            if len(self._done) > _KEYS:
                self._done.popitem(last=False)
        return outcome

    async def _record(self, payload: Payload, key: str, status: int, error: str, attempt: int, started: float) -> None:
        """Record one attempt with its result. Raises: Unavailable."""
        took_ms = round((time.monotonic() - started) * 1000)
        at = self._now_us()
        line = DeliveryAttempt(at, "in", kind_of(payload) or "unknown", status, took_ms, error, attempt, unique_key=key)
        await self._writer.send_one((self._topic, key or None, _encode(line), at // 1000))


def _read(body: bytes) -> Payload:
    try:
        return _decode(body)
    except UNDECODABLE as error:
        raise Problem(400, "not_json", "the body is not a JSON object") from error
