"""The pools of connections to Postgres of one api process, each for one kind of request.

A slow request delays only requests of the same kind. Every wait for a connection is bounded, and ends with 503
`no_free_connection`.
"""

from functools import partial
from typing import Final, NamedTuple

from connectors.config.connections import postgres_url
from connectors.config.settings import Settings
from connectors.postgres.pool import FREE_S, Database
from connectors.telemetry.metrics import Metrics
from schemas.reasons import ACCESS_POOL, CREDITS_POOL, MANAGEMENT_POOL, SLOW_POOL

_FEW: Final = 2


class ApiDatabases(NamedTuple):
    """The pools; all are opened at their first use.

    Fields:
        credits: requests for which LLM calls wait (reservations, debits, balances), and purchases.
            `API_POSTGRES_CONNECTIONS` connections.
        slow: requests that read many rows: analytics, lists of credit transactions.
        management: all other requests of the management API.
        access: API keys and users' provider keys, which every request may need.
    """

    credits: Database
    slow: Database
    management: Database
    access: Database

    def terminate(self) -> None:
        """Close all connections at once."""
        for database in self:
            database.terminate()


def api_databases(settings: Settings, metrics: Metrics) -> ApiDatabases | None:
    """Return the pools of a process; None = the deployment has no Postgres."""
    if settings.postgres_url is None:
        return None

    def pool(name: str, size: int = _FEW) -> Database:
        refused = metrics.api_postgres_refused.labels(name)
        return Database(postgres_url(settings), size, FREE_S, partial(refused.inc))

    return ApiDatabases(
        pool(CREDITS_POOL, settings.api_postgres_connections), pool(SLOW_POOL), pool(MANAGEMENT_POOL), pool(ACCESS_POOL)
    )
