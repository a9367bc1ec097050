"""Ends what is over: reservations that no call has settled in time, and credits that have expired. Measures the books.

Runs beside the projector, in each of its processes: the functions of the database may run at once (migrations/0012_credits.sql).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

import structlog

from connectors.operations.background_task import watch
from connectors.postgres.pool import Database

log = structlog.get_logger(__name__)

#: How often it looks, seconds.
EVERY_S: Final = 30.0
_END: Final = "SELECT release_expired_reservations(), expire_credits()"
#: The imbalance has what can be known quickly: balances against their grants, and the entries of the last hour. All of the
#: books are checked by `meterbridge credits check`.
_STATE: Final = """
SELECT
    (SELECT COALESCE(sum(overdraft), 0) FROM user_credits WHERE overdraft > 0) AS overdraft,
    (SELECT count(*) FROM credit_reservations WHERE settled_at IS NULL AND released_at IS NULL) AS reservations,
    (
        SELECT COALESCE(sum(abs(c.balance - COALESCE(g.total, 0))), 0)
        FROM user_credits c
        LEFT JOIN (SELECT account, sum(remaining) AS total FROM credit_grants WHERE remaining > 0 GROUP BY account) g
            ON g.account = c.account
    ) + (
        SELECT COALESCE(sum(abs(t.total)), 0)
        FROM (
            SELECT sum(e.amount) AS total
            FROM ledger_transactions l JOIN ledger_entries e ON e.transaction_id = l.transaction_id
            WHERE l.created_at > now() - interval '1 hour'
            GROUP BY l.transaction_id
        ) AS t
    ) AS imbalance
"""


class CreditMetrics(Protocol):
    """Exports the state of the credits."""

    def credit_books(self, overdraft_usd: Decimal, reservations: int, imbalance_usd: Decimal) -> None: ...
    def credit_upkeep_failed(self) -> None: ...


class Upkeep(NamedTuple):
    """What was done at one time; `expired_usd` is the sum of the credits that expired."""

    released: int
    expired_usd: Decimal


@dataclass(slots=True)
class CreditUpkeep:
    """Of one process; `sleep` takes seconds."""

    database: Database
    sensors: CreditMetrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def watch(self) -> None:
        """Look again and again. An error is logged and tried again: an expected one once for each cause."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="credit_upkeep_waits",
            failed="credit_upkeep_failed",
            on_failure=self.sensors.credit_upkeep_failed,
        )

    async def once(self) -> Upkeep:
        """End what is over, and export the state of the books. Raises: Unavailable."""
        async with self.database.connection() as connection:
            done = Upkeep(*await connection.fetchrow(_END))
            overdraft, reservations, imbalance = await connection.fetchrow(_STATE)
        self.sensors.credit_books(overdraft, reservations, imbalance)
        if imbalance:
            log.error("credits_do_not_balance", usd=str(imbalance), see="meterbridge credits check")
        if done.released or done.expired_usd:
            log.info("credits_ended", reservations=done.released, expired_usd=str(done.expired_usd))
        return done
