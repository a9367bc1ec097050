"""The power levels over HTTP: how a call's level changes its price, and which providers it prefers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.api.shown_rows import row_shown
from connectors.http.endpoint import AuthorizedRequest
from connectors.http.health import json_response
from connectors.http.own_user import own_endpoint
from connectors.postgres.pool import Database

_LEVELS: Final = """
SELECT power_level, cost_multiplier, provider_order, target_latency_ms, target_quality, description, updated_at
FROM power_level_configs ORDER BY cost_multiplier, power_level
"""


class PowerLevel(BaseModel):
    """A power level.

    Fields:
        power_level: `eco`, `balanced` or `precision`.
        cost_multiplier: a decimal by which the price of a call is multiplied.
        provider_order: providers, the preferred one first.
        target_latency_ms, target_quality: what the level aims at: milliseconds, and a decimal from 0 to 1.
    """

    power_level: str
    cost_multiplier: str = Field(examples=["0.7"])
    provider_order: list[str]
    target_latency_ms: int
    target_quality: str = Field(examples=["0.7"])
    description: str
    updated_at: datetime


class PowerLevels(BaseModel):
    """All power levels, the cheapest first.

    Fields:
        power_levels: the power levels, the cheapest first.
    """

    power_levels: list[PowerLevel]


@dataclass(frozen=True, slots=True)
class PowerLevelHandlers:
    """`/api/v1/power-levels`.

    Args:
        database: raises ConfigurationError if the deployment has no Postgres.
    """

    database: Callable[[], Database]

    @own_endpoint(
        "GET",
        "/api/v1/power-levels",
        "plans:read",
        answers={200: PowerLevels},
    )
    async def listed(self, _: AuthorizedRequest) -> web.Response:
        """List the power levels with their price factors and preferred providers."""
        async with self.database().connection() as connection:
            rows = await connection.fetch(_LEVELS)
        return json_response({"power_levels": [row_shown(row) for row in rows]})
