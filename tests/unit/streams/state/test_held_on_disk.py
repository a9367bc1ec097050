"""A small bound on held windows in memory: each customer's amounts are the same as without it, and the rest is on disk."""

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.customers import OrgRecord
from schemas.ledger import Sum
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.metering.ledger_state import verify
from streams.state import eviction
from streams.state.changelog import restore
from streams.state.held_on_disk import EvictedWindowsFile
from tests.support.calls import NOON
from tests.support.meter_line import BEGINS, ORG, Line
from tests.support.snapshots import snapshot_from

NAMES = ("attack-1", "attack-2", "acme", "ghöst")


STEPS = st.one_of(
    st.tuples(
        st.just("call"), st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 900)), min_size=1, max_size=5)
    ),
    st.tuples(st.sampled_from(["map", "map_later", "forget"]), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["subscribed", "unsubscribed", "begins"])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("taken_over")),
    st.tuples(st.just("give_up"), st.sampled_from([*NAMES, "*", "attack-*", "ac[mn]e"]), st.integers(0, 900)),
)


def take(line: Line, step: tuple[Any, ...]) -> None:
    match step:
        case ("call", calls):
            line.call(*calls)
        case ("map", name):
            line.map(name)
        case ("map_later", name):
            line.map(name, BEGINS)
        case ("subscribed",):
            line.orgs.set("org", ORG)
        case ("unsubscribed",):
            line.orgs.set("org", OrgRecord("org"))
        case ("begins",):
            line.now_us = BEGINS
        case ("forget", name):
            line.forget(name)
        case ("tick",):
            line.punctuate()
        case ("taken_over",):
            line.taken_over(NOON)
        case ("give_up", name, until_s):
            line.give_up("" if name not in NAMES else name, name if name not in NAMES else "", until_s)


def placed(line: Line) -> Counter[tuple[str, str, bool]]:
    """Where each customer's money is, and what is held, without reasons: a window from disk is judged again, one in
    memory keeps its reason until a table changes.
    """
    found = Counter[tuple[str, str, bool]]()
    for (customer, subscription, reason), dollars in line.money().items():
        found[customer, subscription, bool(reason)] += dollars
    return found


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEPS, max_size=25), room=st.integers(0, 6), step=st.integers(1, 4))
def test_the_bound_changes_no_customers_amounts(steps: list[tuple[Any, ...]], room: int, step: int) -> None:
    """For any mappings, subscriptions and write-offs the result with a bound is the same as without, dollar by dollar;
    and after each resolution no more stays in memory.
    """
    free, tight = Line(None), Line(room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eviction, "STEP", step)
        patch.setattr(eviction, "LOOKS", step)
        for one in [*steps, ("tick",)]:
            take(free, one)
            take(tight, one)
            assert tight.ledger.position.counters == free.ledger.position.counters
            assert tight.ledger.waiting() == free.ledger.waiting()
            if one == ("tick",):
                assert placed(tight) == placed(free)
                assert sum(map(len, tight.ledger.held.values())) <= room
        for line in (free, tight):
            take(line, ("subscribed",))
            for name in NAMES:
                line.map(name)
            line.punctuate()
    assert tight.money() == free.money()
    assert not tight.ledger.held
    assert tight.ledger.cold is not None and not tight.ledger.cold.windows


@pytest.mark.parametrize("is_mapped", [False, True])
def test_no_more_windows_than_the_bound_stay_in_memory(is_mapped: bool) -> None:
    """Also of a customer with a record whose org has no subscription; also after a restart."""
    line = Line(5)
    line.orgs.set("org", OrgRecord("org"))
    if is_mapped:
        line.map("acme")
    line.call(*(("acme", second) for second in range(40)))
    for _ in range(2):
        line.punctuate()
        assert len(line.ledger.windows) <= 5 and line.ledger.held_windows() == 40
        line.taken_over(NOON)


def flood(room: int = 10, names: int = 100) -> Line:
    line = Line(room)
    line.call(*((f"attack-{n}", n % 900) for n in range(names)), ("acme", 1))
    line.punctuate()
    return line


def test_a_customer_of_a_flood_is_billed_exactly_when_it_is_mapped() -> None:
    line = flood()
    cold = line.ledger.cold
    assert cold is not None
    assert (len(line.ledger.windows), cold.windows, cold.customers) == (8, 93, 93)
    line.call(("attack-7", 800))
    line.map("attack-7")
    line.punctuate()
    assert line.money()["attack-7", "sub", ""] == 2
    assert (line.ledger.waiting(), cold.customers) == (Sum(102, Decimal(102)), 92)
    line.taken_over(NOON)
    line.punctuate()
    assert line.money()["attack-7", "sub", ""] == 2


def test_a_flood_is_written_off_by_its_pattern_and_no_other_usage() -> None:
    line = flood()
    gone = line.give_up("", "attack-?", 900)
    assert len(set(gone)) == len(gone) == 10
    gone = line.give_up("", "attack-*", 10)
    assert len(gone) == 1, "of those that are left only attack-10 ended by then"
    assert len(line.give_up("", "attack-*", 900)) == 89
    assert line.money() == {("acme", "", NO_MAPPING): 1, ("", "", "written off"): 100}


def test_a_customer_with_usage_in_memory_and_on_disk_is_written_off_once() -> None:
    """Found by the test above: its windows in memory were written off twice, and the ledger did not add up."""
    line = flood()
    line.call(("attack-7", 800))
    line.give_up("", "attack-7", 900, limit=100)
    assert line.money()["", "", "written off"] == 2


def test_the_ledger_is_read_back_within_the_bound() -> None:
    line = flood()
    line.taken_over(NOON)
    cold = line.ledger.cold
    assert cold is not None and len(line.ledger.windows) == 10 and cold.windows == 91
    assert cold.oldest_us() == min(
        window.min_end_us for window in line.windows() if window.first not in line.ledger.windows
    )


def test_a_ledger_that_continues_from_a_changelogs_end_has_what_is_on_disk() -> None:
    """A worker that gets its partition back reads what another worker did meanwhile to windows that it has on disk."""
    line, ledger = flood(), flood().ledger
    before = dict(line.values)
    line.give_up("", "*", 900)
    tail = {key: value for key, value in line.values.items() if before.get(key) != value}
    restore(ledger, snapshot_from(0, tail), 0)
    verify(ledger)
    assert ledger.waiting() == Sum(0, Decimal(0)) and not ledger.windows


def test_a_disk_that_accepts_nothing_costs_memory_and_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(10)
    cold = line.ledger.cold
    assert isinstance(cold, EvictedWindowsFile)
    cold._file.execute("PRAGMA max_page_count=1")
    with capture_logs() as result:
        line.call(*((f"attack-{n}", 0) for n in range(3000)))
        line.punctuate()
        line.punctuate()
    assert (cold.windows, cold.sums, len(line.ledger.windows)) == (0, {}, 3000)
    assert [one["event"] for one in result] == ["held_usage_stays_in_memory"]
    cold._file.execute("PRAGMA max_page_count=100000")
    with capture_logs() as result:
        line.punctuate()
        line.punctuate()
    assert cold.windows == 2992
    assert [one["event"] for one in result] == ["held_usage_on_disk"]


def test_customers_are_listed_page_by_page_while_they_change() -> None:
    line = flood(0, 2500)
    cold = line.ledger.cold
    assert cold is not None
    result = []
    for name in cold.names():
        result.append(name)
        line.ledger.warm(name)
    assert len(set(result)) == len(result) == 2501
    assert (cold.windows, cold.customers, cold.oldest_us(), cold.has("acme")) == (0, 0, None, False)
