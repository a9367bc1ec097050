"""Reads the totals of all ledgers."""

from collections.abc import Mapping
from typing import NamedTuple

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan
from schemas.decoding import Unreadable, decoder
from schemas.errors import LedgerBroken
from schemas.ledger import POSITION_KEY, Counters, Position, Sum
from schemas.money import add
from schemas.reasons import UNREADABLE_LEDGER

_decode = decoder(Position, packed=True)
#: How many of the last records are read to find the position. Each transaction ends with the position, so it is near
#: the end. If the last `_NEAR` records do not have it, `_FAR` times as many are read.
_NEAR, _FAR = 500, 100


class LedgerTotals(NamedTuple):
    """The sums over all ledgers at their last commits.

    Fields:
        decisions: calls and dollars by the meter's decision.
        held: number of held windows, by partition.
    """

    counters: Counters
    decisions: dict[str, Sum]
    held: dict[int, int]


def counted(deployment: Deployment) -> LedgerTotals:
    """Add up the counters in the ledgers' positions.

    Raises:
        TopicProblem, Unavailable, LedgerBroken: see `positions_of`.
    """
    positions = positions_of(deployment)
    held = {number: position.held for number, position in positions.items()}
    return LedgerTotals(_together(positions), _by_decision(positions), held)


def positions_of(deployment: Deployment) -> dict[int, Position]:
    """Read the last committed position of each ledger, by partition.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
        LedgerBroken: `unreadable_ledger`: a position cannot be read; the meter has halted its partition.
    """
    kafka, topic = deployment.kafka, deployment.topics.changelog
    whole = offset_range_of(kafka, topic)
    positions: dict[int, Position] = {}
    reach = _NEAR
    while left := {number: ends for number, ends in whole.ranges.items() if number not in positions and ends[1]}:
        near = {number: (max(start, end - reach), end) for number, (start, end) in left.items()}
        for message in scan(kafka, OffsetRange(topic, near)):
            if message.key() == POSITION_KEY:
                positions.pop(message.partition() or 0, None)  # a rebuild deletes the position first
                if (value := message.value()) is not None:
                    positions[message.partition() or 0] = _position(message.partition() or 0, value)
        if all(near[number][0] <= start for number, (start, _) in left.items()):
            break
        reach *= _FAR
    return positions


def _position(partition: int, value: bytes) -> Position:
    try:
        return _decode(value)
    except Unreadable:
        detail = f"the ledger of partition {partition} cannot be read: `meterbridge ledger rebuild`"
        raise LedgerBroken(UNREADABLE_LEDGER, detail) from None


def _together(positions: Mapping[int, Position]) -> Counters:
    total = Counters()
    for position in positions.values():
        for name in Counters.__struct_fields__:
            one, more = getattr(total, name), getattr(position.counters, name)
            setattr(total, name, Sum(one.calls + more.calls, add(one.cost, more.cost)))
    return total


def _by_decision(positions: Mapping[int, Position]) -> dict[str, Sum]:
    total: dict[str, Sum] = {}
    for position in positions.values():
        for decision, more in position.decisions.items():
            one = total.get(decision, Sum())
            total[decision] = Sum(one.calls + more.calls, add(one.cost, more.cost))
    return total
