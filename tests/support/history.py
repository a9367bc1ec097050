"""The contents of the topics after some calls, half of them held at first. They are made with the meter's own rules,
without Kafka.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import Position
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import Receipt
from schemas.topics import TopicNames
from streams.core.mapping.resolve import Resolver
from streams.core.metering.close_window import coalesce, due_windows, release, seal
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, apply
from streams.runtime.transactions import Write
from streams.state.step_writes import receipt_write, runs_of, writes_of
from tests.support.calls import NOON, raw, slp

TOPICS = TopicNames.with_prefix("")
POLICY = MeterPolicy(window_us=10 * SECOND_US, quiet_us=0)
PREFIX = "d-t-0-"
_PARTITIONS = 2
_CUSTOMERS = ("acme", "late-1", "late-2", "never")
_FATES = (("completed",), ("processing", "completed"), ("processing", "failed"), ("failed", "processing", "completed"))


@dataclass(slots=True)
class TopicRecord:
    """A record of a topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class History:
    """Records by topic and partition, and the ledger they were made with."""

    logs: dict[tuple[str, int], list[TopicRecord]] = field(default_factory=dict)
    ledger: LedgerState = field(default_factory=lambda: LedgerState(Position()))
    decisions: Counter[str] = field(default_factory=Counter)
    released: int = 0

    def write(self, writes: Iterator[Write] | list[Write], at_us: int) -> None:
        """Append records; those without a partition go where their key belongs."""
        for topic, partition, key, value, headers in writes:
            place = partition if partition >= 0 else sum(key or b"") % _PARTITIONS
            log = self.logs.setdefault((topic, place), [])
            log.append(TopicRecord(len(log), at_us // 1000, key, value, tuple(headers)))


def history(seed: int, calls: int = 60) -> History:
    """Return the same records for the same seed."""
    chance, result = random.Random(seed), History()
    versions = (MappingVersion(0, "org", "tenant"),)
    customers = {"acme": CustomerRecord("acme", versions, 0, 0)}
    orgs = {"org": OrgRecord("org", periods=(Period("sub", 0),))}
    fold = Fold(POLICY, PREFIX)
    now_us = NOON
    for start in range(0, calls, 10):
        records = [
            raw(start + n, _call(chance, start + n, now_us), customer=chance.choice(_CUSTOMERS), received_us=now_us)
            for n in range(10)
        ]
        changes = fold(result.ledger, records, Resolver(customers, orgs))
        result.decisions.update(changes.decisions)
        _step(result, changes, now_us)
        for late, when in (("late-1", calls // 3), ("late-2", 2 * calls // 3)):
            if start >= when:
                customers[late] = CustomerRecord(late, versions, 0, 0)
        if chance.random() < 0.3:
            _step(result, coalesce(result.ledger, customers, orgs, POLICY, now_us + 2 * HOUR_US, 100), now_us)
        _release(result, customers, orgs, now_us)
        if chance.random() < 0.5:
            _seal(result, chance, orgs, now_us + 40 * SECOND_US)
        now_us += 7 * SECOND_US
    _release(result, customers, orgs, now_us)
    _seal(result, chance, orgs, now_us + HOUR_US)
    return result


def _call(chance: random.Random, number: int, at_us: int) -> dict[str, object]:
    cost = chance.choice(["0.000145", "8.85e-06", "0"])
    return slp(number, at_us=at_us - chance.randrange(20 * SECOND_US), cost=cost, model=chance.choice(["a", "b"]))


def _step(content: History, changes: Changes, now_us: int) -> None:
    runs = [Write(run.topic, 0, *record) for run in runs_of(changes, TOPICS, 0) for record in run.records]
    content.write([*runs, *writes_of(changes, TOPICS, 0)], now_us)
    apply(content.ledger, changes, now_us)


def _release(content: History, customers: dict[str, CustomerRecord], orgs: dict[str, OrgRecord], now_us: int) -> None:
    while not (changes := release(content.ledger, customers, orgs, POLICY, 5)).empty:
        content.released += len(changes.windows)
        _step(content, changes, now_us)


def _seal(content: History, chance: random.Random, orgs: dict[str, OrgRecord], now_us: int) -> None:
    if not (due := due_windows(content.ledger, now_us, POLICY, 100)):
        return
    changes = seal(content.ledger.position, due, orgs, POLICY, PREFIX, 0, now_us)
    _step(content, changes, now_us)
    for sealed in changes.sealed:
        for number, status in enumerate(chance.choice(_FATES), 1):
            at = now_us + number * SECOND_US
            receipt = Receipt(
                sealed.receipt.transaction_id,
                status,
                at,
                "sub",
                "0",
                0,
                number,
                "" if status == "completed" else "poison",
            )
            content.write([receipt_write(TOPICS, receipt)], at)
