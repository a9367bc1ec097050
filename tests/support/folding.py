"""A partition's meter in a test: records in, decisions, events of the rejected topic and a restart on demand."""

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import msgspec

from schemas.ledger import Position, Sum
from schemas.moments import HOUR_US
from schemas.policy import MeterPolicy
from streams.core.mapping.resolve import Target
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply
from streams.state.changelog import Snapshot, records_of, restore
from tests.support.calls import NOON, Raw, raw
from tests.support.snapshots import snapshot_from


def subscribed(customer: str, _at_us: int, _kind: str) -> Target:
    """Return a subscription for every org."""
    return Target(f"org-{customer}", f"sub-{customer}")


@dataclass
class Partition:
    """Folds what it is given, keeps its changelog compacted as Kafka does, and can be restarted from it.

    Fields:
        decisions: calls by decision.
        rejected, enriched: values of the topics, decoded.
    """

    policy: MeterPolicy = field(default_factory=MeterPolicy)
    ledger: LedgerState = field(default_factory=lambda: LedgerState(Position()))
    changelog: dict[bytes, bytes] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    enriched: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Changes] = field(default_factory=list)

    def take(self, *records: Raw, step: int = 1000) -> "Partition":
        """Fold the records in steps; the ledger adds up after each."""
        fold = Fold(self.policy, "d-t-0-")
        for start in range(0, len(records), step):
            following = self.ledger.position.next
            fetch_batch = [
                replace(record, offset=following + n) for n, record in enumerate(records[start : start + step])
            ]
            changes = fold(self.ledger, fetch_batch, subscribed)
            for key, value in records_of(changes):
                if value is None:
                    self.changelog.pop(key, None)
                else:
                    self.changelog[key] = value
            apply(self.ledger, changes, NOON)
            verify(self.ledger)
            self.decisions.update(changes.decisions)
            self.rejected += [msgspec.json.decode(value) for _, value in changes.rejected]
            self.enriched += [msgspec.json.decode(value) for _, value in changes.enriched]
            self.steps.append(changes)
        return self

    def restart(self) -> "Partition":
        """Another worker reads the changelog."""
        self.ledger = LedgerState(Position())
        restore(self.ledger, self.snapshot(), NOON)
        verify(self.ledger)
        return self

    def snapshot(self) -> Snapshot:
        """Return the changelog as it is read."""
        return snapshot_from(0, self.changelog)

    def idle(self, hours: float) -> "Partition":
        """Move the partition's clock: a call of another customer arrives this much later."""
        at_us = self.ledger.position.clock_ms * 1000 + round(hours * HOUR_US)
        call = {"id": f"idle-{at_us}", "status": "success", "startTime": at_us / 1e6, "endTime": at_us / 1e6}
        return self.take(raw(0, call, received_us=at_us))

    @property
    def billed(self) -> Sum:
        """The amounts in the open windows."""
        return sum_of_windows(self.ledger.windows.values())

    @property
    def cost(self) -> Decimal:
        """Dollars that are billed."""
        return self.billed.cost
