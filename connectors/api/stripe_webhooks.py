"""Receives Stripe's webhooks. The response is 2xx only when the effect is on disk, because after 2xx Stripe does not
send the event again.

| answer | when |
|---|---|
| 200 | the event is applied, was applied before, or is listed as refused; a repeat would change nothing |
| 400 | no signature, or a wrong or old one |
| 422 | this release cannot read the form of the event; it is listed, and Stripe repeats it for three days |
| 501 | `STRIPE_WEBHOOK_SECRET` or Postgres is not set |
| 503 | Postgres does not answer |
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web
from pydantic import BaseModel

from connectors.credits.payments import StripePayments
from connectors.credits.stripe_events import StripeEvent, read_event
from connectors.credits.stripe_signature import SIGNATURE, check_signature, check_signed
from connectors.http.body_reader import BodyReader
from connectors.http.connections import admitted
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.health import json_response
from connectors.http.problem import CLOSES, Problem
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected

PATH: Final = "/webhooks/stripe"
#: Bytes of one event, and of all events in flight. An event contains one object, which has some kilobytes.
MAX_BYTES: Final = 1 << 20
_IN_FLIGHT: Final = 16 * MAX_BYTES
_BODY_S: Final = 30.0


class StripeEventResult(BaseModel):
    """What was done with the event; see docs/credits.md.

    Fields:
        status: what was done with the event; docs/credits.md explains each value.
    """

    status: str


class _Name(msgspec.Struct):
    id: str
    type: str = ""


class StripeWebhooks:
    """The receiver of one process.

    Args:
        payments: returns the store, or raises ConfigurationError if the deployment has no Postgres.
        secrets: `STRIPE_WEBHOOK_SECRET`; without one, every event is refused.
        count: called with the reason when a body is refused before it is read.
    """

    def __init__(
        self, payments: Callable[[], StripePayments], secrets: Sequence[str], count: Callable[[str], None]
    ) -> None:
        self._payments = payments
        self._secrets = secrets
        self._count = count
        self._intake = BodyReader(MAX_BYTES, _IN_FLIGHT)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoint `POST /webhooks/stripe`."""
        summary = "Stripe's webhooks, signed under STRIPE_WEBHOOK_SECRET."
        return [Endpoint("POST", PATH, "", summary, self._post, answers={200: StripeEventResult})]

    async def _post(self, authorized: AuthorizedRequest) -> web.Response:
        if not self._secrets:
            raise Problem(
                501, "no_stripe_secret", "STRIPE_WEBHOOK_SECRET is not set, so no webhook of Stripe is accepted"
            )
        payments, header = self._payments(), authorized.request.headers.get(SIGNATURE, "")
        body = b""
        try:
            check_signed(header)
            body = await self._read(authorized.request)
            check_signature(header, body, self._secrets)
            admitted(authorized.request)
        except Rejected as refusal:
            self._count(refusal.reason)
            raise Problem(400, refusal.reason, refusal.detail, None if body else CLOSES) from refusal
        finally:
            self._intake.release(body)
        return json_response({"status": await payments.apply(await _event(body, payments))})

    async def _read(self, request: web.Request) -> bytes:
        """Return the body of a request that has a signature, which is not checked yet. Raises: Problem 408, 413, 503."""
        try:
            async with asyncio.timeout(_BODY_S):
                return await self._intake.read(request, unauthenticated=True)
        except TimeoutError:
            raise Problem(408, "body_too_slow", "the body did not arrive in time", CLOSES) from None


async def _event(body: bytes, payments: StripePayments) -> StripeEvent:
    """Read the event. Raises: Rejected `stripe_event_unreadable`: the event is listed if it has an id."""
    try:
        return read_event(body)
    except Rejected:
        try:
            named = msgspec.json.decode(body, type=_Name)
        except UNDECODABLE:
            named = _Name("")
        await payments.unreadable(named.id[:255], named.type[:255])
        raise
