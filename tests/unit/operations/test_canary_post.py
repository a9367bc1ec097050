"""The canary's post ends in time and in little memory, whatever answers at its address: a canary that waits warns of nothing."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx
import pytest

from connectors.lago import bounded_response
from connectors.operations.canary_post import CanaryPost, Credential
from streams.core.delivery.canary import CanaryCall
from tests.support.eventually import within


@pytest.mark.parametrize(
    ("piece", "pause_s", "error"),
    [(b" ", 0.02, "TimeoutError"), (b" " * 999, 0, "ResponseTooLarge")],
    ids=["slow", "large"],
)
async def test_an_answer_without_an_end_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, piece: bytes, pause_s: float, error: str
) -> None:
    async def without_end() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield piece
            await asyncio.sleep(pause_s)

    monkeypatch.setattr(bounded_response, "MAX_BYTES", 100_000)
    transport = httpx.MockTransport(lambda _: httpx.Response(202, content=without_end()))
    async with httpx.AsyncClient(transport=transport, timeout=0.5) as http, within(10):
        post = CanaryPost(http, "http://ingress", Credential("token"), "canary", "user", Decimal(1))
        assert await post.post(CanaryCall("call", "model", Decimal(1), 2_000_000, 3_000_000, 4_000_000), 2_000_000) == (
            f"http://ingress/webhook/litellm/usage does not answer: {error}"
        )
