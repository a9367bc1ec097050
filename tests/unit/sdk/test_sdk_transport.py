"""The SDK reads only so much of a response: a wrong address may answer without an end."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from meterbridge_sdk import BillingUnavailable, MeterbridgeClient
from meterbridge_sdk.responses import MAX_BYTES

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
