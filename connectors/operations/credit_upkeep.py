"""Ends expired reservations and expired credits, and exports the state of the credit accounts.

It runs beside the projector, in each of its processes. It handles one account in a transaction. An account that is
locked is left for the next round, because a call may be debited from it. No balance depends on this task: the functions
that lock an account ignore expired reservations and credits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

import structlog

from connectors.operations.background_task import watch
from connectors.postgres.pool import Database
from schemas.money import add

log = structlog.get_logger(__name__)

#: Period of the rounds, seconds.
EVERY_S: Final = 30.0
#: The most accounts of one round, and the most reservations and grants of one transaction.
ROUND: Final = 5000
_PART: Final = 1000
#: The next accounts by name that have expired reservations or credits, and their number.
_OVER: Final = """
SELECT account, max(count) AS count FROM (
    SELECT account, count(*) AS count FROM credit_reservations
    WHERE settled_at IS NULL AND released_at IS NULL AND expires_at <= now() AND account > $1 GROUP BY account
    UNION ALL
    SELECT account, count(*) FROM credit_grants WHERE remaining > 0 AND expires_at <= now() AND account > $1 GROUP BY account
) AS o GROUP BY account ORDER BY account LIMIT $2
"""
_END: Final = "SELECT released, expired_usd FROM expire_credits($1, $2)"
#: Checks only what Postgres can read quickly: balances against their grants, and the entries of the last hour.
#: `meterbridge credits check` checks all entries.
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


class CreditUpkeepMetrics(Protocol):
    """Exports the state of the credits."""

    def credit_books(self, overdraft_usd: Decimal, reservations: int, imbalance_usd: Decimal) -> None: ...
    def credit_upkeep_failed(self) -> None: ...


class Upkeep(NamedTuple):
    """The result of one round; `expired_usd` is the sum of the credits that expired."""

    released: int
    expired_usd: Decimal


@dataclass(slots=True)
class CreditUpkeep:
    """Ends expired reservations and credits. Each process has one instance; `sleep` takes seconds."""

    database: Database
    sensors: CreditUpkeepMetrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    #: The last account of the last round, if more accounts follow it.
    _behind: str = ""

    async def watch(self) -> None:
        """Run `once` periodically until cancelled. An expected error is logged, once for each cause, and retried."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="credit_upkeep_waits",
            refused=self.sensors.credit_upkeep_failed,
        )

    async def once(self) -> Upkeep:
        """End expired reservations and credits, and export the state of the accounts. Raises: Unavailable."""
        async with self.database.connection() as connection:
            done = await self._end(connection)
            overdraft, reservations, imbalance = await connection.fetchrow(_STATE)
        self.sensors.credit_books(overdraft, reservations, imbalance)
        if imbalance:
            log.error("credits_do_not_balance", usd=str(imbalance), see="meterbridge credits check")
        if done.released or done.expired_usd:
            log.info("credits_ended", reservations=done.released, expired_usd=str(done.expired_usd))
        return done

    async def _end(self, connection: Any) -> Upkeep:
        over = await connection.fetch(_OVER, self._behind, ROUND)
        released, expired_usd = 0, Decimal(0)
        for account, count in over:
            for _ in range(0, count, _PART):
                if (ended := await connection.fetchrow(_END, account, _PART)) is None:
                    break
                released += ended[0]
                expired_usd = add(expired_usd, ended[1])
        self._behind = over[-1][0] if len(over) == ROUND else ""
        return Upkeep(released, expired_usd)
