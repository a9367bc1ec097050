"""`GET /metrics` needs no credential, so it must not cost a count of all customers for each request."""

import asyncio
from typing import Any

from connectors.api.event_totals import totals_endpoint
from connectors.http.endpoint import AuthorizedRequest
from streams.core.delivery.event_states import StateTotals


async def test_requests_that_come_together_share_one_count() -> None:
    counted = 0

    async def active_customers() -> int:
        nonlocal counted
        counted += 1
        await asyncio.sleep(0)
        return 7

    nothing: Any = None
    endpoint = totals_endpoint(active_customers, lambda: StateTotals(4, 1, 1, 2))
    answers = await asyncio.gather(
        *(endpoint.handler(AuthorizedRequest(nothing, nothing, nothing)) for _ in range(100))
    )
    assert {answer.status for answer in answers} == {200}
    assert counted == 1
