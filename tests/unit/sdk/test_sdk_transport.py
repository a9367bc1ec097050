"""The SDK reads only so much of a response: a wrong address may answer without an end."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from meterbridge_sdk import BillingError, BillingUnavailable, MeterbridgeClient
from meterbridge_sdk.responses import MAX_BYTES
from tests.support.sdk_logs import sdk_logs

PIECE = 1 << 16


async def test_a_response_that_does_not_end_is_given_up() -> None:
    read = 0

    async def without_end() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 4 * MAX_BYTES:
            read += PIECE
            yield b" " * PIECE
            await asyncio.sleep(0)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=without_end()))
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(BillingUnavailable, match="connection_lost"):
            await MeterbridgeClient(http, "https://a", "key", attempts=1).get_limits("org")
    assert read <= MAX_BYTES + 2 * PIECE


async def test_the_warning_about_a_recorded_event_is_returned_and_logged_once() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(202, json={"status": "accepted", "transaction_id": "tx", "warning": "no plan charges it"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = MeterbridgeClient(http, "https://a", "key")
        with sdk_logs() as lines:
            event = await client.record_usage("org", "api_cal", "tx")
            await client.send(event)
    assert event.warning == "no plan charges it"
    assert [(line["event"], line["level"], line["event_code"]) for line in lines] == [
        ("usage_warning", "WARNING", "api_cal")
    ]


@pytest.mark.parametrize(
    ("status", "reason", "named"),
    [
        (404, "not_found", ("https://a/api/v1/api/v1", "METERBRIDGE_URL")),
        (401, "unknown_token", ("METERBRIDGE_API_KEY",)),
    ],
)
async def test_a_wrong_setting_is_named(status: int, reason: str, named: tuple[str, ...]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json={"reason": reason, "detail": "send the key"}))
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(BillingError, match=reason) as raised:
            await MeterbridgeClient(http, "https://a/api/v1", "key", attempts=1).get_limits("org")
    assert all(name in str(raised.value) for name in named)
