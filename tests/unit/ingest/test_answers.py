"""What the ingress answers: `accepted` only where a call was stored, and a 401 that names the right header."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from connectors.ingest.auth import WebhookAuth
from connectors.ingest.routes import IngressDeps, ingress_routes
from connectors.ingest.store import ElementStore
from connectors.kafka.producer import Record
from schemas.errors import Rejected
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

PATH = "/webhook/litellm/usage"
CALL = '{"id": "a", "user": "acme", "spend": "0.5", "model": "m"}'
BAD = CALL.replace('"0.5"', '"1,23"')
ACCEPTED = {"status": "accepted", "message": "Event queued for processing"}
NOTHING = "no field of a call was found in the object"
REJECTED = {"status": "rejected", "message": "No element was stored as a call; see rejected"}


class _Topics:
    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        return {}


async def _answer(body: str, authorization: str = "Bearer token") -> tuple[int, dict[str, Any]]:
    store = ElementStore(_Topics(), "raw", "rejected", CUSTOMER_ID_FIELDS, lambda: 1)
    application = web.Application()
    application.add_routes(
        ingress_routes(
            IngressDeps(store=store, auth=WebhookAuth(tokens=["token"]), timeout_s=5, max_body_bytes=1 << 20)
        )
    )
    async with TestClient(TestServer(application)) as client:
        response = await client.post(PATH, data=body, headers={"Authorization": authorization})
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (CALL, ACCEPTED),
        ("[null]", ACCEPTED),
        (
            f"[{CALL},{BAD}]",
            {**ACCEPTED, "accepted": 1, "rejected": [{"index": 1, "reason": "wrong_type", "detail": "spend"}]},
        ),
        (BAD, {**REJECTED, "accepted": 0, "rejected": [{"index": 0, "reason": "wrong_type", "detail": "spend"}]}),
        (
            "[null,{}]",
            {**REJECTED, "accepted": 0, "rejected": [{"index": 1, "reason": "not_a_call", "detail": NOTHING}]},
        ),
    ],
)
async def test_a_body_of_which_nothing_was_stored_is_not_said_to_be_accepted(body: str, told: dict[str, Any]) -> None:
    """It is a 202 all the same: another status would make senders repeat forever what stays wrong."""
    assert await _answer(body) == (202, told)


@pytest.mark.parametrize("authorization", ["token", "Bearer other", "Basic token"])
async def test_a_401_says_how_the_header_must_be(authorization: str) -> None:
    status, told = await _answer(CALL, authorization)
    assert (status, told["reason"]) == (401, "unknown_sender")
    assert "`Authorization: Bearer <one of WEBHOOK_TOKEN>`" in told["detail"]
