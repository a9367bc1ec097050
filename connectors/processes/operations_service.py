"""The operations behind the management API: letters put back, the way of usage in numbers, usage without a mapping."""

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from connectors.billing.event_state_reader import ReceiptsFollower
from connectors.billing.rejected_usage import RejectedFollower
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.dead_letters import CALLS, KINDS, DeadLetter, Filters, unresolved
from connectors.operations.ledger_totals import counted, oldest_waiting_s
from connectors.operations.requeue import RequeueResult, desk
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from schemas.money import ZERO, add, plain

_UNMAPPED = """
SELECT customer_id, id_kind, reason, sum(calls) AS calls, sum(cost_usd) AS usd, min(first_seen) AS since
FROM held_parts WHERE transaction_id IS NULL AND written_off_at IS NULL
GROUP BY customer_id, id_kind, reason ORDER BY sum(cost_usd) DESC, customer_id LIMIT 1000
"""
#: Numbers are asked of Kafka at most this often.
_FRESH_S = 2.0


class OperationsService:
    """`connectors.api.dead_letters.Operations` of one process."""

    def __init__(
        self,
        settings: Settings,
        receipts: ReceiptsFollower,
        rejected: RejectedFollower,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._deployment = deployment_of(settings)
        self._receipts = receipts
        self._rejected = rejected
        self._monotonic = monotonic
        self._database = Database(postgres_url(settings), size=2) if settings.postgres_url is not None else None
        self._asked_at = float("-inf")
        self._numbers: dict[str, Any] = {}
        self._asking = asyncio.Lock()

    def close(self) -> None:
        """Drop what is connected."""
        if self._database is not None:
            self._database.terminate()

    async def requeue(
        self, kind: str, filters: Filters, limit: int, why: str, actor: str, accept: str = "", *, dry_run: bool
    ) -> tuple[RequeueResult, int]:
        """Put at most `limit` letters back, under one audit line; a dry run only counts them."""
        if dry_run:
            return RequeueResult(), len(await asyncio.to_thread(self._found, kind, filters, limit))
        sender = CommandProducer(self._deployment.kafka)
        async with desk(self._deployment, sender, self._database) as at:
            letters = await asyncio.to_thread(self._found, kind, filters, limit)
            if not letters:
                return RequeueResult(), 0
            usd = ZERO
            for letter in letters:
                usd = add(usd, letter.usd or ZERO)
            target = {"kind": kind, "reason": filters.reason, "customer": filters.customer, "letter": filters.letter}
            if accept:
                target["accept"] = accept
            audit_id = await asyncio.to_thread(
                lambda: audited(
                    self._deployment,
                    sender,
                    "dlq.requeue",
                    target,
                    actor=actor,
                    reason=why,
                    count=len(letters),
                    cost_usd=usd,
                )
            )
            return await at.requeue(letters, audit_id, lambda _count: None, (accept,) if accept else ()), len(letters)

    async def stats(self) -> dict[str, Any]:
        """Calls and events by what became of them, since the ledgers began; ages in seconds."""
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
        """Customers whose usage is held, the dearest first, at most 1000."""
        if self._database is None:
            postgres_url(self._settings)
            raise AssertionError("postgres_url has raised")
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
        bound = self._settings.held_in_memory
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

    def _found(self, kind: str, filters: Filters, limit: int) -> list[DeadLetter]:
        """Refused calls come back only where the usage log can be asked; `both` leaves them out elsewhere."""
        kinds: tuple[str, ...] = KINDS if kind == "both" else (kind,)
        if kind == "both" and self._database is None:
            kinds = tuple(one for one in kinds if one != CALLS)
        letters = (letter for one in kinds for letter in unresolved(self._deployment, one, filters))
        return list(islice(letters, limit))
