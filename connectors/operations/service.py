"""The operations of the management API: requeues dead letters, counts calls and events, lists usage without a mapping."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from connectors.billing.event_state_reader import ReceiptsFollower
from connectors.billing.rejected_usage import RejectedFollower
from connectors.config.deployment import Deployment
from connectors.operations.dead_letters import BOTH, EVENTS, DeadLetter, Filters, found_letters
from connectors.operations.ledger_totals import counted
from connectors.operations.requeue import RequeueResult, requeuer
from connectors.operations.sender import CommandProducer
from connectors.operations.unread import oldest_waiting_s
from connectors.postgres.pool import Database
from schemas.errors import ConfigurationError, Unavailable
from schemas.money import plain

_UNMAPPED = """
SELECT customer_id, id_kind, reason, sum(calls) AS calls, sum(cost_usd) AS usd, min(first_seen) AS since
FROM held_parts WHERE transaction_id IS NULL AND written_off_at IS NULL
GROUP BY customer_id, id_kind, reason ORDER BY sum(cost_usd) DESC, customer_id LIMIT 1000
"""
#: How long the counts are cached until they are read from Kafka again, seconds.
_FRESH_S = 2.0


class OperationsService:
    """Implements `connectors.api.dead_letters.Operations` for one process.

    Args:
        database: None = there is no Postgres. Refused calls and `unmapped` need it.
        held_in_memory: `HELD_IN_MEMORY`, number of windows of one partition.
    """

    def __init__(
        self,
        deployment: Deployment,
        database: Database | None,
        held_in_memory: int,
        receipts: ReceiptsFollower,
        rejected: RejectedFollower,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment = deployment
        self._database = database
        self._held_in_memory = held_in_memory
        self._receipts = receipts
        self._rejected = rejected
        self._monotonic = monotonic
        self._asked_at = float("-inf")
        self._numbers: dict[str, Any] = {}
        self._asking = asyncio.Lock()

    async def requeue(
        self, kind: str, filters: Filters, limit: int, why: str, actor: str, accept: str = "", *, dry_run: bool
    ) -> tuple[RequeueResult, int]:
        """Requeue at most `limit` dead letters under one audit line. A dry run only counts them."""
        if kind == BOTH and self._database is None:
            kind = EVENTS  # refused calls need a check against the usage log

        def letters_now() -> list[DeadLetter]:
            return list(found_letters(self._deployment, kind, filters, limit))

        if dry_run:
            return RequeueResult(), len(await asyncio.to_thread(letters_now))
        async with requeuer(self._deployment, CommandProducer(self._deployment.kafka), self._database) as at:
            dead_letters = await asyncio.to_thread(letters_now)
            if not dead_letters:
                return RequeueResult(), 0
            audit_id = await at.audit("requeue", dead_letters, kind, filters, why, actor, accept=accept)
            return await at.requeue(dead_letters, audit_id, lambda _count: None, (accept,) if accept else ()), len(
                dead_letters
            )

    async def stats(self) -> dict[str, Any]:
        """Return the numbers of calls and events by outcome since the ledgers began. Ages are in seconds.

        Raises:
            Unavailable: `counting`: the topics have not been read to their end yet.
        """
        states, by_reason = self._receipts.states(), self._rejected.by_reason()
        if states is None or by_reason is None:
            raise Unavailable("counting", "the topics have not been read to their end yet")
        async with self._asking:
            if self._monotonic() - self._asked_at > _FRESH_S:
                self._numbers = await asyncio.to_thread(self._ask)
                self._asked_at = self._monotonic()
        return {
            **self._numbers,
            "rejected_by_reason": by_reason,
            "pending": states.get("pending", 0),
            "delivered": states.get("completed", 0),
            "retrying": states.get("processing", 0),
            "dead": states.get("failed", 0),
        }

    async def unmapped(self) -> list[dict[str, Any]]:
        """Return at most 1000 customers with held usage, the highest amount first.

        Raises:
            ConfigurationError: there is no Postgres.
        """
        if self._database is None:
            raise ConfigurationError(
                "DATABASE_URL",
                "DATABASE_URL or POSTGRES_HOST must be set, for example DATABASE_URL=postgresql://localhost/meterbridge",
            )
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UNMAPPED)
        return [
            {
                "litellm_customer_id": row["customer_id"],
                "id_kind": row["id_kind"],
                "reason": row["reason"],
                "calls": int(row["calls"]),
                "usd": plain(row["usd"]),
                "since": row["since"],
            }
            for row in rows
        ]

    def _ask(self) -> dict[str, Any]:
        (counters, decisions, held), ages = counted(self._deployment), oldest_waiting_s(self._deployment)
        bound = self._held_in_memory
        return {
            "received": counters.received.calls,
            "accepted": counters.folded.calls + counters.unbilled.calls,
            "duplicate": counters.duplicate.calls,
            "rejected": counters.rejected.calls,
            "unbilled": counters.unbilled.calls,
            "by_decision": {
                decision: {"calls": total.calls, "usd": plain(total.cost)}
                for decision, total in sorted(decisions.items())
            },
            "held_windows": sum(held.values()),
            "held_over_bound": sorted(number for number, windows in held.items() if windows > bound),
            "oldest_age_seconds": max(ages.values()),
            "oldest_age_seconds_by_topic": ages,
        }
