"""Restarts a halted ledger at a position from which no call is counted twice, and finds out why it halted.

A producer with the meter's own transactional id fences the partition's owner, then reads the state, then writes the
position. A running worker ends its task, opens the ledger again and finds the position (docs/adr/0004).
"""

import time
from dataclasses import dataclass, field, replace
from decimal import Decimal

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import LedgerBroken, Rejected
from schemas.ledger import LEDGER_VERSION, Counters, Position, Sum
from schemas.moments import SECOND_US
from schemas.money import ZERO
from schemas.reasons import UNREADABLE_LEDGER
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes
from streams.runtime import clock
from streams.runtime.offsets import PartitionOffsets, asking, standing_by
from streams.runtime.transactions import Write
from streams.state.changelog import FETCHING, read, records_of, restore, window_keys
from streams.state.ledger import LEDGER_BEHIND, LedgerConfig, check_origin, check_partitions, is_behind, owning
from streams.state.ledger_expand import in_parts

TRUNCATED, HOLE, NO_LEDGER = "offset_out_of_range", "offset_gap", "ledger_missing"
#: Reasons for which a new ledger begins without the windows of the old one.
ANEW = frozenset((NO_LEDGER, LEDGER_BEHIND))
EARLIEST, LATEST = "earliest", "latest"
#: How much later than its receipt a call may end, microseconds (streams/core/metering/normalise.py).
_CLOCKS_US = 600 * SECOND_US
#: The most offsets beyond the end of the log that are filled. A larger number is not the accident of one broker.
MOST_FILLED = 1_000_000
_SEARCH_MS = 20.0
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class RestartPosition:
    """The requested position: `earliest`, `latest`, an offset, or a record time in milliseconds since 1970 UTC."""

    word: str = ""
    offset: int | None = None
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EmittedTotals:
    """The highest part number and the sums of all parts that `billing.lago.events` has of a partition without a ledger.

    `margin`: dollars that the parts bill beyond the cost in `sums`. `grown_from`: see `Position`.
    """

    seal_seq: int = 0
    sums: Sum = field(default_factory=Sum)
    margin: Decimal = ZERO
    grown_from: int = 0


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """A plan.

    Fields:
        reason: why the ledger cannot be used; `""` = it can.
        stood: its position; without a ledger, or if it is behind, the group's offset, otherwise the beginning of the log.
        next: the new position.
        skipped: number of offsets from `stood` on that are never counted, because they are lost or skipped.
        fill: number of records to write first, so that no offset is used twice.
        forgot_us: calls that ended before this wait for a check (`beyond_horizon`), microseconds since 1970 UTC; 0 = no
            identity is lost.
    """

    partition: int
    reason: str
    stood: int
    next: int
    skipped: int = 0
    fill: int = 0
    forgot_us: int = 0


async def plan(place: LedgerConfig, partition: int, restart_at: RestartPosition) -> RestartPlan:
    """Make the plan. This fences no worker and changes nothing.

    Raises:
        TopicProblem, LedgerBroken: as `Ledger.open`, if a new position does not help.
        Rejected: `begins_below`: calls at or after it were counted; `begins_beyond`: there is no such offset yet;
            `offsets_would_repeat`: the log ends before the ledger's position, so only `latest` works;
            `too_much_to_fill`, above `MOST_FILLED`.
    """
    async with asking(place.kafka, place.group, **FETCHING) as consumer:
        return (await _planned(consumer, place, partition, restart_at))[0]


async def begin(
    place: LedgerConfig, partition: int, restart_at: RestartPosition, planned: RestartPlan, sealed: EmittedTotals
) -> None:
    """Carry out the plan.

    Raises:
        Rejected: `ledger_moved`: the plan has changed since. Everything that `plan` raises.
    """
    async with owning(place, partition) as writer:
        async with asking(place.kafka, place.group, **FETCHING) as consumer:
            now, state, outdated = await _planned(consumer, place, partition, restart_at)
        if (now.reason, now.stood, now.next, now.fill) != (planned.reason, planned.stood, planned.next, planned.fill):
            raise Rejected("ledger_moved", "the ledger or its topic is another by now: look again")
        position = _position(place, state, now, sealed)
        source = TopicPartition(place.topics.raw, partition)
        for part in in_parts(Write(place.topics.changelog, partition, key, None) for key in outdated):
            await writer.commit(part, source, None, place.group)
        writes = [Write(place.topics.changelog, partition, *record) for record in records_of(Changes(position))]
        await writer.commit(writes, source, position.next, place.group)


def _position(place: LedgerConfig, ledger: LedgerState, planned: RestartPlan, sealed: EmittedTotals) -> Position:
    """Return the position in the plan. The sums of the state are correct with it."""
    position = ledger.position
    position.next = planned.next
    position.skipped += planned.skipped
    if planned.reason not in ANEW:
        return position
    folded = sealed.sums + sum_of_windows(ledger.windows.values())
    position = Position(planned.next, 0, place.topic_id, place.partitions, place.deployment, sealed.seal_seq)
    position.counters = Counters(received=folded, folded=folded, sealed=sealed.sums)
    position.v, position.forgot_us, position.skipped = LEDGER_VERSION, planned.forgot_us, planned.skipped
    position.margin, position.grown_from = sealed.margin, sealed.grown_from
    return position


async def _planned(
    consumer: AIOKafkaConsumer, place: LedgerConfig, partition: int, restart_at: RestartPosition
) -> tuple[RestartPlan, LedgerState, tuple[bytes, ...]]:
    """Return the plan, the state that is kept, and the keys of windows that are not."""
    tp = TopicPartition(place.topics.raw, partition)
    raw = await standing_by(consumer, tp)
    check_partitions(place, raw)
    snapshot = await read(consumer, place.topics.changelog, partition, whole=True)
    state = LedgerState(Position())
    try:
        restore(state, snapshot, 0)
    except LedgerBroken as broken:
        if broken.reason != UNREADABLE_LEDGER:
            raise
        state, snapshot.position = LedgerState(Position()), None  # treated as missing; the readable rest is kept
        restore(state, snapshot, 0)
    if snapshot.position is None:
        return await _without_ledger(consumer, tp, raw, restart_at), state, ()
    check_origin(place, state.position)
    if is_behind(raw, state.position):  # its windows may have been sealed
        anew = replace(await _without_ledger(consumer, tp, raw, restart_at), reason=LEDGER_BEHIND)
        return anew, LedgerState(Position()), tuple(window_keys(snapshot))
    verify(state)
    return await _with_ledger(consumer, tp, raw, restart_at, state.position.next), state, ()


async def _with_ledger(
    consumer: AIOKafkaConsumer, tp: TopicPartition, raw: PartitionOffsets, restart_at: RestartPosition, stood: int
) -> RestartPlan:
    if stood > raw.end:
        return _beyond_the_end(tp, raw, restart_at, stood)
    there = await _first_record(consumer, tp, max(stood, raw.begin), raw.end)
    if stood >= raw.begin and there in (None, stood):
        return RestartPlan(tp.partition, "", stood, stood)
    first = raw.end if there is None else there
    begins = await _chosen(consumer, tp, raw, restart_at, first)
    return RestartPlan(tp.partition, TRUNCATED if stood < raw.begin else HOLE, stood, begins, begins - stood)


def _beyond_the_end(tp: TopicPartition, raw: PartitionOffsets, restart_at: RestartPosition, stood: int) -> RestartPlan:
    """Make the plan if counted records are lost at the end of the log.

    Kafka would give their offsets to other records. Offsets name the parts, so the log is filled up first.
    """
    if restart_at.word != LATEST and restart_at.offset != stood:
        raise Rejected("offsets_would_repeat", f"the log ends at {raw.end}, before {stood}: begin from latest")
    if stood - raw.end > MOST_FILLED:
        raise Rejected("too_much_to_fill", f"the log ends {stood - raw.end} offsets before the ledger's position")
    return RestartPlan(tp.partition, TRUNCATED, stood, stood, 0, stood - raw.end)


async def _without_ledger(
    consumer: AIOKafkaConsumer, tp: TopicPartition, raw: PartitionOffsets, restart_at: RestartPosition
) -> RestartPlan:
    """Make the plan if the identities are lost with the ledger. A call that ended before the last call was received may
    be a repeat.
    """
    if raw.begin == 0 and raw.committed is None:
        return RestartPlan(tp.partition, "", 0, 0)
    stood = raw.begin if raw.committed is None else raw.committed
    if stood > raw.end:
        beyond = _beyond_the_end(tp, raw, restart_at, stood)
        return replace(beyond, reason=NO_LEDGER, forgot_us=clock.now_us() + _CLOCKS_US)
    begins = await _chosen(consumer, tp, raw, restart_at, raw.begin)
    forgot_us = await _received_before(consumer, tp, raw, max(stood, begins)) * 1000 + _CLOCKS_US
    return RestartPlan(tp.partition, NO_LEDGER, stood, begins, max(0, begins - stood), forgot_us=forgot_us)


async def _chosen(
    consumer: AIOKafkaConsumer, tp: TopicPartition, raw: PartitionOffsets, restart_at: RestartPosition, lowest: int
) -> int:
    """Return the requested offset, in `[lowest, end]`."""
    if restart_at.word == LATEST:
        return raw.end
    if restart_at.at_ms is not None:
        return max(lowest, await _at(consumer, tp, restart_at.at_ms) or raw.end)
    if restart_at.offset is None:
        return lowest
    if restart_at.offset < lowest:
        raise Rejected(
            "begins_below", f"{tp.topic}-{tp.partition} can begin from {lowest} on: what lies below was counted"
        )
    if restart_at.offset > raw.end:
        raise Rejected("begins_beyond", f"{tp.topic}-{tp.partition} ends at {raw.end}")
    return restart_at.offset


async def _first_record(consumer: AIOKafkaConsumer, tp: TopicPartition, at: int, end: int) -> int | None:
    """Return the offset of the first existing record from `at` on; None if there is none before `end`."""
    if at >= end:
        return None
    consumer.assign([tp])
    consumer.seek(tp, at)
    until = time.monotonic() + _LOOK_S
    while await consumer.position(tp) < end and time.monotonic() < until:
        for records in (await consumer.getmany(timeout_ms=200, max_records=1)).values():
            return int(records[0].offset)
    return None


async def _received_before(consumer: AIOKafkaConsumer, tp: TopicPartition, raw: PartitionOffsets, offset: int) -> int:
    """Return a moment after which no record below `offset` was received, milliseconds since 1970 UTC; now if no record
    is left.
    """
    now_ms = time.time_ns() // 1_000_000
    if offset <= raw.begin:
        return now_ms if offset else 0
    low, high = 0, now_ms + 86_400_000
    while high - low > _SEARCH_MS:
        middle = (low + high) // 2
        first = await _at(consumer, tp, middle)
        low, high = (low, middle) if first is None or first >= offset else (middle, high)
    return high


async def _at(consumer: AIOKafkaConsumer, tp: TopicPartition, at_ms: int) -> int | None:
    """Return the offset of the first record with that time or later; None if there is none."""
    offset = (await consumer.offsets_for_times({tp: at_ms}))[tp]
    return None if offset is None else int(offset.offset)
