"""Counts calls and events by their state, for the management API."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from connectors.billing.event_state_reader import ReceiptsFollower
from connectors.billing.rejected_usage import RejectedFollower
from connectors.config.deployment import Deployment
from connectors.operations.ledger_totals import counted
from connectors.operations.unread import oldest_waiting_s
from schemas.errors import Unavailable
from schemas.ledger import Sum
from schemas.money import plain
from streams.core.metering.decisions import CARRIED

#: How long the counts are cached until they are read from Kafka again, seconds.
_FRESH_S = 2.0


@dataclass(slots=True)
class PipelineCounts:
    """Counts for one process.

    Args:
        held_in_memory: `HELD_IN_MEMORY`, number of windows of one partition.
        monotonic: a clock, seconds.
    """

    deployment: Deployment
    held_in_memory: int
    receipts: ReceiptsFollower
    rejected: RejectedFollower
    monotonic: Callable[[], float] = time.monotonic
    _asked_at: float = field(default=float("-inf"), init=False)
    _numbers: dict[str, Any] = field(default_factory=dict, init=False)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def now(self) -> dict[str, Any]:
        """Return the numbers of calls and events by outcome since the ledgers began. Ages are in seconds.

        Raises:
            Unavailable: `counting`: the topics have not been read to their end yet.
        """
        states, by_reason = self.receipts.states(), self.rejected.by_reason()
        if states is None or by_reason is None:
            raise Unavailable("counting", "the topics have not been read to their end yet")
        async with self._asking:
            if self.monotonic() - self._asked_at > _FRESH_S:
                self._numbers = await asyncio.to_thread(self._ask)
                self._asked_at = self.monotonic()
        return {
            **self._numbers,
            "rejected_by_reason": by_reason,
            "pending": states.get("pending", 0),
            "delivered": states.get("completed", 0),
            "retrying": states.get("processing", 0),
            "dead": states.get("failed", 0),
        }

    def _ask(self) -> dict[str, Any]:
        (counters, decisions, held), ages = counted(self.deployment), oldest_waiting_s(self.deployment)
        bound, carried = self.held_in_memory, decisions.get(CARRIED, Sum()).calls
        return {
            "received": counters.received.calls,
            "accepted": counters.folded.calls + counters.unbilled.calls,
            "duplicate": counters.duplicate.calls,
            "rejected": counters.rejected.calls,
            "unbilled": counters.unbilled.calls - carried,
            "carried": carried,
            "by_decision": {
                decision: {"calls": total.calls, "usd": plain(total.cost)}
                for decision, total in sorted(decisions.items())
            },
            "held_windows": sum(held.values()),
            "held_over_bound": sorted(number for number, windows in held.items() if windows > bound),
            "oldest_age_seconds": max(ages.values()),
            "oldest_age_seconds_by_topic": ages,
        }
