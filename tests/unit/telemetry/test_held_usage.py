"""Held usage is logged once for each customer with its amount; its age is a metric."""

import time

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from connectors.telemetry.held_usage import HeldUsageMonitor
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.ledger import Position
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy
from streams.core.mapping.held_reasons import NO_MAPPING, NO_SUBSCRIPTION
from streams.core.mapping.resolve import Target
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import apply
from streams.state.held_on_disk import EvictedWindowsFile
from tests.support.calls import NOON, raw, slp


class Watched:
    """One ledger, its monitor and the log lines."""

    def __init__(self, room: int = 100) -> None:
        self.registry = CollectorRegistry()
        self.ledger = LedgerState(Position(), EvictedWindowsFile(room))
        self.watch = HeldUsageMonitor(Metrics(self.registry, "0"), lambda: NOON + 100 * SECOND_US)
        self._fold = Fold(MeterPolicy(), "d-t-0-")
        self.watch.look(0, self.ledger)  # a new ledger is looked at when it is opened

    def held(self, *customers: str, at_s: int = 0, reason: str = NO_MAPPING) -> None:
        """Hold a call of each customer; then look at the ledger."""
        start = self.ledger.position.next
        records = [
            raw(start + n, slp(start + n, at_us=NOON + at_s * SECOND_US, cost="0.5"), customer=customer)
            for n, customer in enumerate(customers)
        ]
        if records:
            changes = self._fold(self.ledger, records, lambda _c, _a, _k: Target("", "", reason))
            apply(self.ledger, changes, NOON)
        self.watch.look(0, self.ledger)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"meterbridge_{name}", labels)


def of_ledger(watched: Watched) -> list[float | None]:
    names = ("ledger_held_customers", "ledger_held_windows", "held_over_bound")
    return [watched.value(name, partition="0") for name in names]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_each_customer_is_logged_once_with_reason_and_amount(watched: Watched) -> None:
    with capture_logs() as said:
        watched.held("ghost", "ghost")
        watched.held("ghost", "spirit")
        watched.held()
    assert [(one["event"], one["customer"], one["calls"], one["usd"]) for one in said] == [
        ("usage_held", "ghost", 2, "1"),
        ("usage_held", "spirit", 1, "0.5"),
    ]
    assert said[0]["reason"] == NO_MAPPING
    assert (watched.value("newly_held_customers_total"), watched.value("held_customers")) == (2, 2)


def test_a_customer_is_logged_again_with_another_reason(watched: Watched) -> None:
    """It is mapped now and still not billed: a person who acted on the first line needs the second reason, once."""
    with capture_logs() as said:
        watched.held("ghost")
        watched.held("ghost", reason=NO_SUBSCRIPTION, at_s=-1200)
        watched.held("ghost", reason=NO_SUBSCRIPTION, at_s=-1201)
        watched.held("ghost", at_s=-2400)
    assert [(one["customer"], one["reason"], one["calls"], one["usd"]) for one in said] == [
        ("ghost", NO_MAPPING, 1, "0.5"),
        ("ghost", NO_SUBSCRIPTION, 1, "0.5"),
    ]
    assert watched.value("newly_held_customers_total") == 1


def test_usage_held_before_the_ledger_was_opened_here_does_not_count_as_newly_held(watched: Watched) -> None:
    """Otherwise each restart of a worker would look like a flood of customers."""
    watched.held("ghost", "spirit")
    watched.watch.close(0)
    watched.watch.look(0, watched.ledger)
    assert watched.value("newly_held_customers_total") == 2
    watched.held("spectre", at_s=10)
    assert (watched.value("newly_held_customers_total"), watched.value("held_customers")) == (3, 3)


def test_a_flood_of_unknown_customers_is_counted(watched: Watched) -> None:
    with capture_logs() as said:
        watched.held(*(f"ghost-{number}" for number in range(25)))
    assert len(said) == 11
    assert said[-1]["count"] == 15


def test_the_age_is_that_of_the_oldest_held_call(watched: Watched) -> None:
    assert watched.value("held_oldest_seconds") == 0
    watched.held("ghost", at_s=40)
    watched.held("spirit", at_s=10)
    assert watched.value("held_oldest_seconds") == 90


def test_a_closed_ledger_is_no_longer_counted(watched: Watched) -> None:
    watched.held("ghost")
    watched.watch.close(0)
    assert watched.value("held_oldest_seconds") == 0


def test_each_ledgers_held_customers_and_windows_are_shown_and_whether_they_exceed_the_bound() -> None:
    watched = Watched(room=3)
    watched.held("ghost", "spirit")
    watched.held("ghost", at_s=10)
    assert of_ledger(watched) == [2, 3, 0]
    watched.held("shade")
    assert of_ledger(watched) == [3, 4, 1]
    watched.ledger.chill(lambda _: True, 2, 9)
    watched.held()
    assert of_ledger(watched) == [3, 4, 1], "what lies on disk counts"
    watched.watch.close(0)
    assert of_ledger(watched) == [0, 0, 0]


def test_usage_in_memory_beyond_the_bound_is_logged_once_until_there_is_room_again() -> None:
    watched = Watched(room=1)
    with capture_logs() as said:
        watched.held("ghost", "spirit")
        watched.held("shade")
        watched.ledger.chill(lambda _: True, 1, 9)
        watched.held()
        watched.held("wraith")
    assert [(one["partition"], one["windows"]) for one in said if one["event"] == "held_usage_over_bound"] == [
        (0, 2),
        (0, 2),
    ]


def test_held_windows_on_disk_are_counted_with_the_others(watched: Watched) -> None:
    watched.held("ghost", "spirit", "shade")
    watched.ledger.chill(lambda _: True, 1, 9)
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    WorkerSensors(metrics, time.monotonic).ledger(0, watched.ledger)
    names = ("meterbridge_held_windows", "meterbridge_held_windows_on_disk")
    assert [metrics.registry.get_sample_value(name) for name in names] == [3, 2]
