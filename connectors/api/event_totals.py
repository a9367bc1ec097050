"""`GET /metrics`: how many events are in each state. It needs no credential."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import BaseModel

from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.health import json_response
from connectors.http.problem import try_again
from connectors.http.shared_answer import SharedAnswer
from streams.core.delivery.event_states import StateTotals

_RETRY_S = 5


class EventTotals(BaseModel):
    """Lago events in each state, and customers whose mapping in force is active.

    Pending events are sealed, and neither completed nor failed. Held usage is not an event yet.

    Fields:
        total_events: all Lago events that were made.
        pending_events: events that are sealed, and neither completed nor failed.
        completed_events: events that Lago accepted.
        failed_events: events that Lago refused for good.
        active_customers: customers whose mapping in force is active.
    """

    total_events: int
    pending_events: int
    completed_events: int
    failed_events: int
    active_customers: int


def totals_endpoint(
    active_customers: Callable[[], Awaitable[int]], totals: Callable[[], StateTotals | None]
) -> Endpoint:
    """Return the endpoint `GET /metrics`.

    Args:
        active_customers: customers whose mapping in force is active.
        totals: of all receipts; None while the process still reads them.
    """

    # Counting takes a second for a million customers, and anybody may ask.
    active = SharedAnswer(active_customers, time.monotonic)

    async def metrics(_: AuthorizedRequest) -> web.Response:
        counted = totals()
        if counted is None:
            raise try_again("counting", "the process has not read all receipts yet", _RETRY_S)
        return json_response({**counted._asdict(), "active_customers": await active.get()})

    return Endpoint(
        "GET", "/metrics", "", "Show how many events are in each state.", metrics, answers={200: EventTotals}
    )
