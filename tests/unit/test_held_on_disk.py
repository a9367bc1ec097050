"""However few held windows stay in memory: each customer's money is what it is without a bound, and the rest is on disk."""

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import Position, Sum, Window
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import WriteOff
from streams.changelog import image_from, restore
from streams.cold import ColdFile
from streams.core.books import Books, verify
from streams.core.fold import Fold
from streams.core.mapping import NO_MAPPING, Resolver
from streams.core.seal import release
from streams.core.writeoff import write_off
from streams.on_disk import OnDisk
from tests.support.calls import NOON, raw, slp
from tests.support.own_changelog import OwnChangelog

PREFIX = "d-t-0-"
POLICY = MeterPolicy()
NAMES = ("attack-1", "attack-2", "acme", "ghöst")
ORGS = {"org": OrgRecord("org", periods=(Period("sub", 0),))}


class Followed:
    """The table of customers as the meter follows it."""

    def __init__(self) -> None:
        self.table: dict[str, CustomerRecord] = {}
        self.members = 0

    def map(self, name: str) -> None:
        self.members += name not in self.table
        self.table[name] = CustomerRecord(name, (MappingVersion(0, "org", "tenant"),), 0, 0)

    def forget(self, name: str) -> None:
        self.members += name in self.table
        self.table.pop(name, None)


class Line(OwnChangelog):
    """A partition's ledger, whose worker keeps `room` held windows in memory; None = all of them."""

    def __init__(self, room: int | None) -> None:
        super().__init__()
        self.room = room
        self.customers = Followed()
        self.number = 0
        self.taken_over(NOON)

    def restored(self, now_us: int = 0) -> Books:
        books = Books(Position(), None if self.room is None else ColdFile(self.room))
        restore(books, image_from(0, self.values), now_us)
        return books

    def taken_over(self, now_us: int) -> None:
        super().taken_over(now_us)
        self.on_disk = OnDisk()

    def call(self, *calls: tuple[str, int]) -> None:
        """One call of a dollar for each (customer, second after noon)."""
        records = []
        for name, second in calls:
            at_us = NOON + second * SECOND_US
            records.append(
                raw(self.books.position.next + len(records), slp(self.number, at_us=at_us, cost="1"), customer=name)
            )
            self.number += 1
        resolve = Resolver(self.customers.table, ORGS)
        self.commit(Fold(POLICY, PREFIX)(self.books, records, resolve), NOON)

    def tick(self) -> None:
        """As `MeterWork.tick`."""
        known = self.customers.table
        self.on_disk.wake(self.books, self.customers)
        while not (changes := release(self.books, known, ORGS, POLICY, 3)).empty:
            self.commit(changes, NOON)
        if self.books.over() > 0:
            while self.on_disk.relieve(self.books, known, 0):
                pass
        verify(self.books)

    def give_up(self, customer: str, match: str, until_s: int, limit: int = 4) -> list[str]:
        """The ids of the windows that left."""
        order, offset, gone = WriteOff("a", NOON, NOON + until_s * SECOND_US, match=match), self.books.position.next, []
        while self.books.position.next == offset:
            changes = write_off(self.books, offset, 0, customer, order, PREFIX, limit)
            gone += [receipt.transaction_id for receipt in changes.receipts]
            self.commit(changes, NOON)
        return gone

    def windows(self) -> list[Window]:
        """Wherever they are: as a command reads them, which has no bound."""
        books = Books(Position())
        restore(books, image_from(0, self.values), 0)
        return list(books.windows.values())

    def money(self) -> Counter[tuple[str, str, str]]:
        found: Counter[tuple[str, str, str]] = Counter()
        for window in self.windows():
            found[window.customer_id, window.subscription, window.held] += int(window.cost)
        found["", "", "written off"] += int(self.books.position.counters.written_off.cost)
        return +found


STEPS = st.one_of(
    st.tuples(
        st.just("call"), st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 900)), min_size=1, max_size=5)
    ),
    st.tuples(st.sampled_from(["map", "forget"]), st.sampled_from(NAMES)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("taken_over")),
    st.tuples(st.just("give_up"), st.sampled_from([*NAMES, "*", "attack-*", "ac[mn]e"]), st.integers(0, 900)),
)


def take(line: Line, step: tuple[Any, ...]) -> None:
    match step:
        case ("call", calls):
            line.call(*calls)
        case ("map", name):
            line.customers.map(name)
        case ("forget", name):
            line.customers.forget(name)
        case ("tick",):
            line.tick()
        case ("taken_over",):
            line.taken_over(NOON)
        case ("give_up", name, until_s):
            line.give_up("" if name not in NAMES else name, name if name not in NAMES else "", until_s)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=25), room=st.integers(0, 6))
def test_the_bound_changes_no_customers_money(steps: list[tuple[Any, ...]], room: int) -> None:
    """A law: whoever is mapped and whatever is given up, with a bound it is the same as without, dollar by dollar."""
    free, tight = Line(None), Line(room)
    for step in [*steps, ("tick",)]:
        take(free, step)
        take(tight, step)
        assert tight.books.position.counters == free.books.position.counters
        assert tight.books.waiting() == free.books.waiting()
        if step == ("tick",):
            assert tight.money() == free.money()
    for line in (free, tight):
        for name in NAMES:
            line.customers.map(name)
        line.tick()
    assert tight.money() == free.money()
    assert not tight.books.held


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=20), room=st.integers(0, 6))
def test_no_more_stays_in_memory_than_the_bound(steps: list[tuple[Any, ...]], room: int) -> None:
    """But for those of customers with a record, which may find a target at any time."""
    line = Line(room)
    for step in [*steps, ("tick",)]:
        take(line, step)
    known = line.customers.table
    assert sum(1 for one in line.books.windows.values() if one.held and one.customer_id not in known) <= room


def flood(room: int = 10, names: int = 100) -> Line:
    line = Line(room)
    line.call(*((f"attack-{n}", n % 900) for n in range(names)), ("acme", 1))
    line.tick()
    return line


def test_one_of_a_flood_is_billed_exactly_when_it_is_mapped() -> None:
    line = flood()
    cold = line.books.cold
    assert cold is not None
    assert (len(line.books.windows), cold.windows, cold.customers) == (8, 93, 93)
    line.call(("attack-7", 800))
    line.customers.map("attack-7")
    line.tick()
    assert line.money()["attack-7", "sub", ""] == 2
    assert (line.books.waiting(), cold.customers) == (Sum(102, Decimal(102)), 92)
    line.taken_over(NOON)
    line.tick()
    assert line.money()["attack-7", "sub", ""] == 2


def test_a_flood_is_given_up_by_its_pattern_and_nobody_else() -> None:
    line = flood()
    gone = line.give_up("", "attack-?", 900)
    assert len(set(gone)) == len(gone) == 10
    gone = line.give_up("", "attack-*", 10)
    assert len(gone) == 1, "of those that are left only attack-10 ended by then"
    assert len(line.give_up("", "attack-*", 900)) == 89
    assert line.money() == {("acme", "", NO_MAPPING): 1, ("", "", "written off"): 100}


def test_a_name_with_usage_in_memory_and_on_disk_is_given_up_once() -> None:
    """Found by the law: its windows in memory were given up twice, and the books did not add up."""
    line = flood()
    line.call(("attack-7", 800))
    line.give_up("", "attack-7", 900, limit=100)
    assert line.money()["", "", "written off"] == 2


def test_the_books_are_read_back_within_the_bound() -> None:
    line = flood()
    line.taken_over(NOON)
    cold = line.books.cold
    assert cold is not None and len(line.books.windows) == 10 and cold.windows == 91
    assert cold.oldest_us() == min(
        window.min_end_us for window in line.windows() if window.first not in line.books.windows
    )


def test_a_tail_that_is_read_on_finds_what_lies_on_disk() -> None:
    """A worker that gets its partition back reads what another did meanwhile to windows that it has on disk."""
    line, books = flood(), flood().books
    before = dict(line.values)
    line.give_up("", "*", 900)
    tail = {key: value for key, value in line.values.items() if before.get(key) != value}
    restore(books, image_from(0, tail), 0)
    verify(books)
    assert books.waiting() == Sum(0, Decimal(0)) and not books.windows


def test_a_disk_that_takes_nothing_costs_memory_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(10)
    cold = line.books.cold
    assert isinstance(cold, ColdFile)
    cold._file.execute("PRAGMA max_page_count=1")
    with capture_logs() as told:
        line.call(*((f"attack-{n}", 0) for n in range(3000)))
        line.tick()
        line.tick()
    assert (cold.windows, cold.sums, len(line.books.windows)) == (0, {}, 3000)
    assert [one["event"] for one in told] == ["held_usage_stays_in_memory"]
    cold._file.execute("PRAGMA max_page_count=100000")
    with capture_logs() as told:
        line.tick()
        line.tick()
    assert cold.windows == 2992
    assert [one["event"] for one in told] == ["held_usage_on_disk"]


def test_names_are_told_a_page_at_a_time_while_they_change() -> None:
    line = flood(0, 2500)
    cold = line.books.cold
    assert cold is not None
    told = []
    for name in cold.names():
        told.append(name)
        line.books.warm(name)
    assert len(set(told)) == len(told) == 2501
    assert (cold.windows, cold.customers, cold.oldest_us(), cold.has("acme")) == (0, 0, None, False)
