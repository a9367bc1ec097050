"""How well the providers answer, over HTTP."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel

from connectors.api.analytics import READ
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import json_response
from connectors.operations.provider_health import provider_states
from connectors.operations.usage_report import plain
from connectors.postgres.pool import Database


class ProviderState(BaseModel):
    """A provider and a model, by the calls of the last ten minutes.

    Fields:
        status: `since` says from when on.
        calls: successful calls, and failures of the provider's own.
        avg_latency_ms, p95_latency_ms, success_rate: decimals; null = there were no such calls.
        consecutive_failures: since the last success; `rate_limited`: calls that the provider refused as too many.
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
    """At most 1000 pairs of provider and model."""

    providers: list[ProviderState]


class ProviderHealthHandlers:
    """`/api/v1/providers/health`.

    Args:
        database: raises ConfigurationError if the deployment has no Postgres.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database

    @endpoint(
        "GET",
        "/api/v1/providers/health",
        READ,
        answers={200: ProviderStates},
        sees_to_orgs=True,
        own_without_scope=True,
    )
    async def listed(self, _: AuthorizedRequest) -> web.Response:
        """Show how well each provider answers for each model: healthy, degraded or down."""
        states = await provider_states(self._database())
        return json_response({"providers": [_shown(row) for row in states]})


def _shown(row: Any) -> dict[str, Any]:
    return {name: plain(value) if isinstance(value, Decimal) else value for name, value in row.items()}
