"""Proves that billing is correct: the sealed sums of the ledgers equal the emitted events, and Lago counts these
events.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal

from schemas.ledger import Position, Sum, Window
from schemas.money import EXACT, ZERO, add
from schemas.plurals import numbered
from streams.core.metering.conservation import difference

_HUNDRED = Decimal(100)
#: Lago rounds each fee line once, half up to the cent.
HALF_A_CENT = Decimal("0.5")


@dataclass(slots=True)
class Emitted:
    """Numbers and sums of the parts of one raw partition in `billing.lago.events`.

    Parts above `limit` are left out, because the ledger was read a moment earlier. Kafka deletes whole segments, and
    those of each partition of the topic begin at another time. So a part may have expired although an older one is
    still there: parts up to `expired_ms` are counted by the tables if a part before the first younger one is gone.

    Fields:
        expired_ms: record time up to which retention may have removed parts, milliseconds since 1970 UTC; 0 = it has
            removed none.
        from_the_start: whether the topic still has its first record, so that retention has removed no part.
        older: sums in Postgres of the parts before the first part in the topic; None = not queried.
    """

    limit: int
    numbers: set[int] = field(default_factory=set)
    repeated: int = 0
    calls: int = 0
    cents: Decimal = ZERO
    from_the_start: bool = False
    older: "Older | None" = None
    expired_ms: int = 0
    _doubtful: dict[int, tuple[int, Decimal]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Number of the first part in the topic; one past the last if the topic has none."""
        return min(self.numbers, default=self.limit + 1)

    def take(self, seal_seq: int, calls: int, cents: Decimal, at_ms: int) -> None:
        """Count one part; `at_ms`: the time of its record, milliseconds since 1970 UTC. Call `settle` after the last."""
        if seal_seq > self.limit:
            return
        if seal_seq in self.numbers or seal_seq in self._doubtful:
            self.repeated += 1
        elif at_ms <= self.expired_ms:
            self._doubtful[seal_seq] = calls, cents
        else:
            self._count(seal_seq, calls, cents)

    def settle(self) -> None:
        """Count the parts up to `expired_ms` that follow each other without a gap up to the younger ones."""
        first = self.first
        for number in sorted(self._doubtful, reverse=True):
            if number < first - 1:
                break
            self._count(number, *self._doubtful.pop(number))
            first = min(first, number)

    def _count(self, seal_seq: int, calls: int, cents: Decimal) -> None:
        self.numbers.add(seal_seq)
        self.calls += calls
        self.cents = add(self.cents, cents)


@dataclass(frozen=True, slots=True)
class Older:
    """Sums in Postgres of the parts from `Position.summed_from` on that precede the first part in the topic. Pruned
    parts are unknown.
    """

    parts: int
    calls: int
    cents: Decimal


def ledger_discrepancies(
    partition: int, position: Position, windows: Collection[Window], emitted: Emitted
) -> list[str]:
    """Return a sentence for each discrepancy in a partition.

    Parts that retention removed from the topic are not missing. Sums are compared only if all parts are in the topic or
    in Postgres.
    """
    discrepancies = []
    received, folded = difference(position.counters, windows)
    if received != Sum() or folded != Sum():
        discrepancies.append(
            f"partition {partition}: the ledger is off by {numbered(received.calls, 'call')} and {received.cost} USD received, "
            f"{numbered(folded.calls, 'call')} and {folded.cost} USD folded"
        )
    if emitted.repeated:
        discrepancies.append(f"partition {partition}: {emitted.repeated} parts were emitted twice")
    first, older, begin = emitted.first, emitted.older, position.summed_from
    if emitted.from_the_start and first > 1:
        discrepancies.append(
            f"partition {partition}: parts 1 to {first - 1} are missing, and none has left the topic by age"
        )
    missing = position.seal_seq + 1 - first - len(emitted.numbers)
    if missing:
        discrepancies.append(
            f"partition {partition}: {missing} parts between {first} and {position.seal_seq} are missing"
        )
    sealed, calls, cents = position.counters.sealed, emitted.calls, emitted.cents
    if first > begin and older is not None and older.parts == first - begin:
        first, calls, cents = begin, calls + older.calls, add(cents, older.cents)
    billed = add(sealed.cost, position.margin)
    if first == begin and not missing and (calls, cents) != (sealed.calls, EXACT.multiply(billed, _HUNDRED)):
        discrepancies.append(
            f"partition {partition}: {numbered(sealed.calls, 'call')} and {billed} USD were sealed, "
            f"events hold {numbered(calls, 'call')} and {EXACT.divide(cents, _HUNDRED)} USD"
        )
    return discrepancies


def uncompared(partition: int, position: Position, emitted: Emitted) -> str:
    """Say why `ledger_discrepancies` cannot compare the sums of a partition; `""` = it compares them, or complains."""
    first, older, begin = emitted.first, emitted.older, position.summed_from
    if first <= begin or emitted.from_the_start or (older is not None and older.parts == first - begin):
        return ""
    return (
        f"partition {partition}: the sums were not compared, because not all of the parts {begin} to {first - 1} are in the "
        "topic any more, nor in Postgres"
    )


@dataclass(frozen=True, slots=True)
class LagoUsage:
    """Lago's count for a subscription in its current period `[from_us, until_us)`.

    Fields:
        cents: sum of the charges on our metric; Lago has rounded each line.
        lines: number of those fee lines.
        has_events: whether Lago counts any event in the current period.
    """

    subscription: str
    from_us: int
    until_us: int
    cents: Decimal
    lines: int
    has_events: bool = False


def complaint_about_lago(usage: LagoUsage, delivered_cents: Decimal, waiting_cents: Decimal) -> str:
    """Return a sentence if Lago does not count the delivered amount, to half a cent per fee line; otherwise `""`.

    Args:
        waiting_cents: events that Lago may count as well: they are in flight, at the border of the period, or dead letters that
            Lago may have.
    """
    slack = HALF_A_CENT * max(1, usage.lines)
    lowest, highest = add(delivered_cents, -slack), add(add(delivered_cents, waiting_cents), slack)
    if lowest <= usage.cents <= highest:
        return ""
    return (
        f"subscription {usage.subscription}: Lago counts {usage.cents} cents, {delivered_cents} were delivered,"
        f" and it may count {waiting_cents} more"
    )
