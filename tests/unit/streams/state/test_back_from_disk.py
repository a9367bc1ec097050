"""Usage on disk of customers with a record comes back to memory when its target may have changed, at any time."""

import asyncio

import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import SECOND_US
from streams.agents import meter
from streams.state import eviction
from tests.support.calls import NOON
from tests.support.meter_line import BEGINS, Line


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "STEP", 1)
    monkeypatch.setattr(eviction, "LOOKS", 1)


def of(org: str, *names: str, room: int = 2) -> Line:
    """A partition whose customers belong to an org that is not known yet."""
    line = Line(room)
    for name in names:
        line.customers.set(name, CustomerRecord(name, (MappingVersion(0, org, "tenant"),), 0, 0))
    return line


def billed(line: Line) -> int:
    return sum(calls for (_, subscription, _), calls in line.money().items() if subscription)


def on_disk_of(line: Line) -> int:
    return 0 if line.ledger.cold is None else line.ledger.cold.windows


def test_a_mapping_that_starts_by_the_clock_brings_its_usage_back() -> None:
    line = Line(2)
    line.map("acme", BEGINS)
    line.call(*(("acme", second) for second in range(8)))
    line.punctuate()
    assert on_disk_of(line) == 7
    line.now_us = BEGINS - SECOND_US
    line.punctuate()
    assert (on_disk_of(line), billed(line)) == (7, 0)
    line.now_us = BEGINS
    line.punctuate()
    assert (on_disk_of(line), billed(line)) == (0, 8)


def test_usage_that_came_back_and_stayed_in_memory_is_released_by_the_clock() -> None:
    line = Line(6)
    line.map("early")
    line.orgs.set("org", None)
    line.call(*(("early", second) for second in range(6)))
    line.punctuate()
    line.call(*(("late", second) for second in range(4)), ("other", 0))
    line.punctuate()
    assert on_disk_of(line) > 4
    line.orgs.set("org", OrgRecord("org", periods=(Period("sub", 0),)))
    line.map("late", BEGINS)
    line.map("other")  # comes back first
    line.punctuate()
    assert (on_disk_of(line), billed(line)) == (0, 7), "all of it is in memory now"
    line.now_us = BEGINS
    line.punctuate()
    assert billed(line) == 11


def test_a_table_change_while_windows_go_to_disk_leaves_none_behind() -> None:
    names = [f"tenant-{number}" for number in range(8)]
    line = of("new", *names)
    line.call(*((name, 0) for name in names))

    async def ticks() -> None:
        async def subscribe() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            line.orgs.set("new", OrgRecord("new", periods=(Period("sub", 0),)))

        await asyncio.gather(line.work.punctuate(), subscribe())

    asyncio.run(ticks())
    assert line.orgs.table["new"].periods
    line.punctuate()
    assert (on_disk_of(line), billed(line)) == (0, 8)


def test_the_state_of_older_windows_is_kept_when_younger_ones_go_to_disk() -> None:
    """The mapping ended in between: the older ones are billed once there is a subscription, the younger ones are not,
    and went to disk before the older ones were resolved.
    """
    others = [f"other-{number}" for number in range(40)]
    line = of("new", *others)
    active = MappingVersion(0, "new", "tenant")
    ended = MappingVersion(NOON + 400 * SECOND_US, "new", "tenant", is_active=False)
    line.customers.set("acme", CustomerRecord("acme", (active, ended), 0, 0))
    line.call(*((name, 0) for name in others), ("acme", 1), ("acme", 2), ("acme", 3), *((name, 5) for name in others))
    line.punctuate()
    line.call(*(("acme", 500 + number) for number in range(4)))
    line.orgs.set("new", OrgRecord("new", periods=(Period("sub", 0),)))
    line.punctuate()
    assert line.money()["acme", "", "inactive"] == 4
    assert billed(line) == 83


def test_a_write_off_that_brings_usage_back_lets_it_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Immediately after a restart, before everything on disk was resolved."""
    names = [f"tenant-{number}" for number in range(20)]
    line = Line(2)
    line.call(*((name, 100) for name in [*names, "zebra"]))
    line.punctuate()
    for name in [*names, "zebra"]:
        line.map(name)
    line.taken_over(0)
    monkeypatch.setattr(meter, "_DISK_STEPS", 1)
    asyncio.run(line.work.punctuate())
    assert line.ledger.cold is not None and line.ledger.cold.has("zebra")
    asyncio.run(line.work.process([line.order("zebra", until_s=5)]))
    assert not line.ledger.cold.has("zebra")
    line.punctuate()
    assert billed(line) == 21


def test_a_customer_with_much_usage_on_disk_comes_back_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "STEP", 10)
    monkeypatch.setattr(meter, "_DISK_STEPS", 3)
    line = Line(20)
    line.call(*(("acme", second) for second in range(200)))
    line.punctuate()
    assert on_disk_of(line) == 184
    line.map("acme")
    asyncio.run(line.work.punctuate())
    assert on_disk_of(line) == 154, "calls that wait come in between"
    line.punctuate()
    assert (on_disk_of(line), billed(line)) == (0, 200)
