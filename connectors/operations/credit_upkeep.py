"""Ends what is over: reservations that no call has settled in time, and credits that have expired. Measures the books.

Runs beside the projector, in each of its processes. It takes one account a transaction, and leaves an account that is locked for
the next round: calls are debited meanwhile. No balance waits for it: the functions that lock an account count nothing that is over.
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

#: How often it looks, seconds.
EVERY_S: Final = 30.0
#: The most accounts of one round, and the most reservations and grants of one transaction.
ROUND: Final = 5000
_PART: Final = 1000
#: The accounts behind one, by name, of which something is over, and how much.
_OVER: Final = """
SELECT account, max(count) AS count FROM (
    SELECT account, count(*) AS count FROM credit_reservations
    WHERE settled_at IS NULL AND released_at IS NULL AND expires_at <= now() AND account > $1 GROUP BY account
    UNION ALL
    SELECT account, count(*) FROM credit_grants WHERE remaining > 0 AND expires_at <= now() AND account > $1 GROUP BY account
) AS o GROUP BY account ORDER BY account LIMIT $2
"""
_END: Final = "SELECT released, expired_usd FROM expire_credits($1, $2)"
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
    #: The last account of the last round, if more are behind it.
    _behind: str = ""

    async def watch(self) -> None:
        """Look again and again. An expected error is logged, once for each cause, and the next attempt follows."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="credit_upkeep_waits",
            refused=self.sensors.credit_upkeep_failed,
        )

    async def once(self) -> Upkeep:
        """End what is over, and export the state of the books. Raises: Unavailable."""
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
