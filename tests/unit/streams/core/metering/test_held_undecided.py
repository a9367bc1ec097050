"""Held calls are undecided: after any merge each call is billed to the org that would have paid for it alone."""

from dataclasses import replace
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import HELD_LENGTH_US, Position
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import WriteOff
from streams.core.mapping.resolve import Resolver
from streams.core.mapping.time_spans import QUARTER_US, borders, crossed, stretch
from streams.core.metering.close_window import coalesce, release
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import apply
from streams.core.metering.write_off import write_off
from tests.support.calls import NOON, raw, slp
from tests.support.own_changelog import OwnChangelog, image_of

POLICY = MeterPolicy()
PREFIX = "d-t-0-"
copy = msgspec.structs.replace
LATER = NOON + 2 * HOUR_US
Customers = dict[str, CustomerRecord]
Orgs = dict[str, OrgRecord]


def record(*versions: MappingVersion) -> CustomerRecord:
    return CustomerRecord("acme", versions, 0, 0)


def version(at: int, org: str, **fields: object) -> MappingVersion:
    return MappingVersion(at, org, "tenant", **fields)  # type: ignore[arg-type]


def folded(calls: list[tuple[int, str]], customers: Customers, orgs: Orgs, kind: str = "end_user") -> LedgerState:
    """One call for each (microsecond after noon, dollars)."""
    ledger, fold = LedgerState(Position()), Fold(POLICY, PREFIX)
    fold_on(ledger, fold, calls, customers, orgs, kind)
    return ledger


def fold_on(
    ledger: LedgerState,
    fold: Fold,
    calls: list[tuple[int, str]],
    customers: Customers,
    orgs: Orgs,
    kind: str = "end_user",
) -> None:
    start = ledger.position.next
    records = [
        raw(start + n, slp(start + n, at_us=NOON + at, cost=usd), kind=kind) for n, (at, usd) in enumerate(calls)
    ]
    apply(ledger, fold(ledger, records, Resolver(customers, orgs)), NOON)


def merged(ledger: LedgerState, customers: Customers, orgs: Orgs) -> LedgerState:
    while not (changes := coalesce(ledger, customers, orgs, POLICY, LATER, 3)).empty:
        apply(ledger, changes, LATER)
    verify(ledger)
    return ledger


def billed(ledger: LedgerState, customers: Customers, orgs: Orgs) -> dict[tuple[str, str], Decimal]:
    """Dollars by org and subscription after everything that can be released was released."""
    while not (changes := release(ledger, customers, orgs, POLICY, 3)).empty:
        apply(ledger, changes, LATER)
    verify(ledger)
    found: dict[tuple[str, str], Decimal] = {}
    for window in ledger.windows.values():
        if not window.held:
            key = (window.org_id, window.subscription)
            found[key] = found.get(key, Decimal(0)) + window.cost
    return found


def test_a_moved_customers_held_usage_stays_with_the_earlier_org() -> None:
    """Earlier 100 USD of org_ga were billed to org_gb: both were held, and merged, before either had a subscription."""
    customers = {"acme": record(version(0, "org_ga"), version(NOON + 60 * SECOND_US, "org_gb"))}
    ledger = merged(folded([(30 * SECOND_US, "100"), (90 * SECOND_US, "1")], customers, {}), customers, {})
    orgs = {name: OrgRecord(name, periods=(Period(f"sub_{name}", 0),)) for name in ("org_ga", "org_gb")}
    assert billed(ledger, customers, orgs) == {("org_ga", "sub_org_ga"): 100, ("org_gb", "sub_org_gb"): 1}


def test_two_subscriptions_that_meet_within_a_quarter_of_an_hour_each_get_their_own_calls() -> None:
    """The border is known at the merge: only the org's currency holds the usage."""
    at = NOON + 400 * SECOND_US
    periods = (Period("old", 0, at), Period("new", at))
    customers = {"acme": record(version(0, "org"))}
    euro = {"org": OrgRecord("org", currency="EUR", periods=periods)}
    ledger = merged(folded([(399 * SECOND_US, "100"), (400 * SECOND_US, "1")], customers, euro), customers, euro)
    assert billed(ledger, customers, {"org": OrgRecord("org", periods=periods)}) == {
        ("org", "old"): 100,
        ("org", "new"): 1,
    }


def test_two_subscriptions_found_later_that_meet_at_noon_each_get_their_own_calls() -> None:
    """No subscription was known at the merge; a subscription starts at midnight of some time zone, which is on a
    quarter of an hour.
    """
    customers = {"acme": record(version(0, "org"))}
    ledger = merged(folded([(-SECOND_US, "100"), (0, "1")], customers, {}), customers, {})
    orgs = {"org": OrgRecord("org", periods=(Period("old", 0, NOON), Period("new", NOON)))}
    assert billed(ledger, customers, orgs) == {("org", "old"): 100, ("org", "new"): 1}


def test_a_border_found_later_does_not_split_a_window_whose_last_call_decides_and_this_is_counted() -> None:
    customers = {"acme": record(version(0, "org"))}
    ledger = merged(folded([(10 * SECOND_US, "100"), (20 * SECOND_US, "1")], customers, {}), customers, {})
    at = NOON + 15 * SECOND_US
    orgs = {"org": OrgRecord("org", periods=(Period("old", 0, at), Period("new", at)))}
    assert release(ledger, customers, orgs, POLICY, 10).straddled == 1
    assert billed(ledger, customers, orgs) == {("org", "new"): 101}
    apart = folded([(10 * SECOND_US, "100"), (20 * SECOND_US, "1")], customers, {})
    assert release(apart, customers, orgs, POLICY, 10).straddled == 0


def test_windows_merged_before_a_border_was_known_take_no_more_calls_across_it() -> None:
    """They stay whole: later calls are resolved by themselves."""
    customers = {"acme": record(version(0, "org"))}
    ledger = merged(folded([(10 * SECOND_US, "100"), (20 * SECOND_US, "1")], customers, {}), customers, {})
    at = NOON + 15 * SECOND_US
    orgs = {"org": OrgRecord("org", currency="EUR", periods=(Period("old", 0, at), Period("new", at)))}
    fold_on(ledger, Fold(POLICY, PREFIX), [(11 * SECOND_US, "7")], customers, orgs)
    merged(ledger, customers, orgs)
    dollars = {"org": OrgRecord("org", periods=orgs["org"].periods)}
    assert billed(ledger, customers, dollars) == {("org", "new"): 101, ("org", "old"): 7}


def test_ids_of_two_kinds_share_no_held_window_and_only_the_mapped_kind_is_released() -> None:
    ledger = folded([(0, "1")], {}, {}, "end_user")
    fold_on(ledger, Fold(POLICY, PREFIX), [(0, "2")], {}, {}, "team")
    assert len(ledger.windows) == 2
    merged(ledger, {}, {})
    customers = {"acme": record(version(0, "org", id_kind="team"))}
    orgs = {"org": OrgRecord("org", periods=(Period("sub", 0),))}
    assert billed(ledger, customers, orgs) == {("org", "sub"): 2}
    (left,) = [window for window in ledger.windows.values() if window.held]
    assert (left.id_kind, left.held, left.cost) == ("end_user", "id_kind_not_mapped", 1)


def test_ids_of_two_kinds_in_one_batch_share_no_held_window() -> None:
    ledger = LedgerState(Position())
    records = [raw(n, slp(n), kind=kind) for n, kind in enumerate(("end_user", "team", "end_user"))]
    apply(ledger, Fold(POLICY, PREFIX)(ledger, records, Resolver({}, {})), NOON)
    assert {window.id_kind: window.count for window in ledger.windows.values()} == {"end_user": 2, "team": 1}


def test_the_resolver_caches_no_target_of_an_org_with_two_subscriptions() -> None:
    orgs = {"org": OrgRecord("org", periods=(Period("old", 0, NOON), Period("new", NOON)))}
    resolver = Resolver({"acme": record(version(0, "org"))}, orgs)
    asked = [NOON - 1, NOON, NOON - 1]
    assert [resolver("acme", at, "team").subscription for at in asked] == ["old", "new", "old"]


def test_the_shown_reason_is_the_current_one() -> None:
    ledger = folded([(0, "1")], {}, {})
    customers = {"acme": record(version(0, "org"))}
    assert billed(ledger, customers, {}) == {}
    assert [(window.held, window.org_id) for window in ledger.windows.values()] == [("no_subscription", "org")]
    assert release(ledger, customers, {}, POLICY, 10).empty


def test_merging_twice_leaves_one_window_and_a_late_call_finds_it() -> None:
    """Earlier the index of held windows was not in the changelog: each pass left another window, and outdated keys."""
    ledger, fold = LedgerState(Position()), Fold(POLICY, PREFIX)
    for second in range(5):
        fold_on(ledger, fold, [(second * SECOND_US, "1")], {}, {})
        merged(ledger, {}, {})
    assert [(window.count, window.length_us) for window in ledger.windows.values()] == [(5, QUARTER_US)]


def test_a_late_call_of_a_second_that_was_merged_and_written_off_is_held_again() -> None:
    """In an earlier version it ended the process: the index named a deleted window."""
    ledger, fold = LedgerState(Position()), Fold(POLICY, PREFIX)
    fold_on(ledger, fold, [(0, "1"), (SECOND_US, "1")], {}, {})
    merged(ledger, {}, {})
    order = WriteOff("audit", NOON, NOON + HOUR_US)
    apply(ledger, write_off(ledger, ledger.position.next, 0, "acme", order, PREFIX), NOON)
    assert not ledger.windows and not ledger.index
    fold_on(ledger, fold, [(0, "5")], {}, {})
    assert [window.cost for window in ledger.windows.values()] == [5]
    verify(ledger)


def test_windows_held_again_under_one_key_are_all_kept() -> None:
    """Two windows that were resolved separately may get one key if neither is billed; removing one leaves the other in
    the index.
    """
    ledger = folded([(0, "1"), (0, "2")], {}, {})
    (one,) = ledger.windows.values()
    other = copy(one, first=99)
    ledger.put(other, 0)
    ledger.remove(one.first)
    assert ledger.index == dict.fromkeys(ledger.index, 99) and len(ledger.index) == 1
    ledger.remove(99)
    assert not ledger.index and not ledger.held


SECONDS = st.integers(-20, 20)


@settings(max_examples=80, deadline=None)
@given(
    calls=st.lists(st.tuples(SECONDS, st.integers(0, 999_999)), min_size=1, max_size=25),
    moves=st.lists(st.tuples(SECONDS, st.sampled_from(["a", "b"])), max_size=3),
    meet=st.one_of(st.none(), SECONDS),
    cut=st.integers(1, 24),
)
def test_merging_never_changes_who_pays(
    calls: list[tuple[int, int]], moves: list[tuple[int, str]], meet: int | None, cut: int
) -> None:
    """Versions and periods are known, and the currency holds all usage; which windows merge, and when, changes no cent."""
    versions = [version(NOON - HOUR_US, "a")]
    for second, org in sorted(dict(moves).items()):
        versions.append(version(NOON + second * SECOND_US, org))
    customers = {"acme": record(*versions)}
    at = NOON + (meet or 0) * SECOND_US + 123_456
    periods = (Period("s", 0),) if meet is None else (Period("old", 0, at), Period("new", at))
    orgs = {name: OrgRecord(name, currency="EUR", periods=periods) for name in ("a", "b")}
    ended = [(second * SECOND_US + micro, f"0.{n + 1:03}") for n, (second, micro) in enumerate(calls)]
    log, fold = OwnChangelog(), Fold(POLICY, PREFIX)
    fold_on(log.ledger, fold, ended[:cut], customers, orgs)
    merged(log.ledger, customers, orgs)
    if ended[cut:]:
        fold_on(log.ledger, fold, ended[cut:], customers, orgs)
        merged(log.ledger, customers, orgs)
    dollars = {name: OrgRecord(name, periods=periods) for name in orgs}
    alone: dict[tuple[str, str], Decimal] = {}
    for end, usd in ended:
        target = Resolver(customers, dollars)("acme", NOON + end, "end_user")
        key = (target.org_id, target.subscription)
        alone[key] = alone.get(key, Decimal(0)) + Decimal(usd)
    straddling = any(
        crossed(borders(customers["acme"], dollars), window.min_end_us, window.max_end_us)
        for window in log.ledger.windows.values()
    )
    found = billed(log.ledger, customers, dollars)
    assert sum(found.values()) == sum(alone.values())
    if not straddling:  # a period that begins within a second: that second goes by its last call
        assert found == alone


@settings(max_examples=200)
@given(
    known=st.lists(st.integers(0, 3 * QUARTER_US), max_size=4),
    first=st.integers(0, 3 * QUARTER_US),
    length=st.integers(0, 2 * HELD_LENGTH_US),
)
def test_a_merge_span_contains_its_calls_and_no_border(known: list[int], first: int, length: int) -> None:
    known.sort()
    found = stretch(known, first, first + length)
    if found is None:
        assert crossed(known, first, first + length) or first // QUARTER_US != (first + length) // QUARTER_US
        return
    start, end = found
    assert start <= first <= first + length < end
    assert start // QUARTER_US == (end - 1) // QUARTER_US
    assert not crossed(known, start, end - 1)


def test_a_flood_of_unknown_customers_makes_one_window_each_in_a_quarter_of_an_hour() -> None:
    fold, ledger = Fold(POLICY, PREFIX), LedgerState(Position())
    begins = NOON - 3 * QUARTER_US
    records = [
        replace(raw(0, slp(n, at_us=begins + n * 10 * SECOND_US), customer=f"name-{n % 3}"), offset=n)
        for n in range(270)
    ]
    apply(ledger, fold(ledger, records, Resolver({}, {})), NOON)
    assert len(ledger.windows) == 270
    merged(ledger, {}, {})
    assert len(ledger.windows) == 9  # three names, three quarters of an hour
    assert sum_of_windows(ledger.windows.values()) == ledger.position.counters.folded


def test_a_ledger_read_back_equals_the_ledger_in_memory() -> None:
    log, fold = OwnChangelog(), Fold(POLICY, PREFIX)
    records = [raw(n, slp(n, at_us=NOON + n * SECOND_US)) for n in range(5)]
    log.commit(fold(log.ledger, records, Resolver({}, {})), NOON)
    log.commit(coalesce(log.ledger, {}, {}, POLICY, LATER, 100), LATER)
    assert image_of(log.restored()) == image_of(log.ledger)
