"""How well the providers answer, over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from connectors.api.analytics import READ
from connectors.api.shown_rows import row_shown
from connectors.http.endpoint import AuthorizedRequest
from connectors.http.health import json_response
from connectors.http.own_user import own_endpoint
from connectors.operations.provider_health import provider_states
from connectors.postgres.pool import Database


class ProviderState(BaseModel):
    """A provider and a model, by the calls of the last ten minutes.

    Fields:
        status: `down` or `degraded` = the provider's own failures are many; `since` says from when on.
        since: from when on it has this status, ISO 8601.
        calls: successful calls, and failures of the provider's own.
        avg_latency_ms, p95_latency_ms, success_rate: decimals; null = there were no such calls.
        consecutive_failures: failures since the last success.
        rate_limited: calls that the provider refused as too many.
        last_call_at: end of the latest call, ISO 8601; null = none in these ten minutes.
    """

    provider: str
    model: str
    status: Literal["healthy", "degraded", "down"]
    since: datetime
    calls: int
    avg_latency_ms: str | None
    p95_latency_ms: str | None
    success_rate: str | None
    consecutive_failures: int
    rate_limited: int
    last_call_at: datetime | None
    updated_at: datetime


class ProviderStates(BaseModel):
    """At most 1000 pairs of provider and model.

    Fields:
        providers: one entry for each provider and model.
    """

    providers: list[ProviderState]


@dataclass(frozen=True, slots=True)
class ProviderHealthHandlers:
    """`/api/v1/providers/health`.

    Args:
        database: raises ConfigurationError if the deployment has no Postgres.
    """

    database: Callable[[], Database]

    @own_endpoint(
        "GET",
        "/api/v1/providers/health",
        READ,
        answers={200: ProviderStates},
    )
    async def listed(self, _: AuthorizedRequest) -> web.Response:
        """Show how well each provider answers for each model: healthy, degraded or down."""
        states = await provider_states(self.database())
        return json_response({"providers": [row_shown(row) for row in states]})
