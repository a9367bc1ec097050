"""Held usage leaves the ledger through a mapping or a recorded write-off order, never by itself; the ledger adds up
afterwards.
"""

from dataclasses import replace
from decimal import Decimal
from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Position, Sum
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import WriteOff
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.mapping.resolve import Target
from streams.core.metering.close_window import coalesce
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply
from streams.core.metering.write_off import meant_by, write_off
from tests.support.calls import NOON, raw, slp

PREFIX = "d-t-0-"


def unauthenticated(customer: str, at_us: int, kind: str) -> Target:
    return Target("org", "sub") if customer == "known" else Target("", "", NO_MAPPING)


def ledgers_of(calls: list[tuple[str, int]]) -> LedgerState:
    """One call of one dollar for each (customer, second after noon)."""
    ledger, fold = LedgerState(Position()), Fold(MeterPolicy(), PREFIX)
    records = [
        replace(raw(0, slp(n, at_us=NOON + second * SECOND_US, cost="1"), customer=customer), offset=n)
        for n, (customer, second) in enumerate(calls)
    ]
    if records:
        apply(ledger, fold(ledger, records, unauthenticated), NOON)
    return ledger


def given_up(ledger: LedgerState, customer: str, until: int = NOON + 100 * SECOND_US, kind: str = "") -> list[str]:
    """Apply an order; returns the ids of the windows that left."""
    order = WriteOff("audit-1", NOON, until, kind)
    changes = write_off(ledger, ledger.position.next, NOON // 1000, customer, order, PREFIX)
    apply(ledger, changes, NOON)
    verify(ledger)
    return [receipt.transaction_id for receipt in changes.receipts]


def test_all_usage_held_for_the_customer_is_written_off_and_nothing_else() -> None:
    ledger = ledgers_of([("ghost", 0), ("ghost", 5), ("spirit", 0), ("known", 0)])
    assert given_up(ledger, "ghost") == [f"{PREFIX}0", f"{PREFIX}1"]
    assert ledger.position.counters.written_off == Sum(2, Decimal(2))
    assert {window.customer_id for window in ledger.windows.values()} == {"spirit", "known"}


def test_usage_with_a_subscription_is_never_written_off() -> None:
    ledger = ledgers_of([("known", 0)])
    assert given_up(ledger, "known") == []
    assert sum_of_windows(ledger.windows.values()) == Sum(1, Decimal(1))


def test_usage_after_the_orders_end_stays() -> None:
    """
    ghost:  0s ---- 5s | until 5s ---- 6s
            gone    gone               stays
    """
    ledger = ledgers_of([("ghost", 0), ("ghost", 5), ("ghost", 6)])
    given_up(ledger, "ghost", until=NOON + 5 * SECOND_US)
    assert [window.max_end_us for window in ledger.windows.values()] == [NOON + 6 * SECOND_US]


def test_usage_of_another_id_kind_stays() -> None:
    ledger = ledgers_of([("ghost", 0)])
    assert given_up(ledger, "ghost", kind="team") == []
    assert given_up(ledger, "ghost", kind="end_user") == [f"{PREFIX}0"]


def test_a_second_identical_order_finds_nothing() -> None:
    ledger = ledgers_of([("ghost", 0)])
    given_up(ledger, "ghost")
    assert given_up(ledger, "ghost") == []
    assert ledger.position.counters.written_off == Sum(1, Decimal(1))


def test_a_receipt_names_the_window_its_amount_and_the_audit_line() -> None:
    ledger = ledgers_of([("ghost", 0)])
    order = WriteOff("audit-7", NOON + 9, NOON)
    (receipt,) = write_off(ledger, 1, NOON // 1000, "ghost", order, PREFIX).receipts
    assert (receipt.status, receipt.cents, receipt.calls, receipt.reason, receipt.at) == (
        "written_off",
        "100",
        1,
        "audit-7",
        NOON + 9,
    )


def test_windows_that_were_merged_into_one_are_named_too() -> None:
    """Each was announced as held when it was opened; its amount left with the window it was merged into."""
    ledger = ledgers_of([("ghost", 0), ("ghost", 1), ("ghost", 2)])
    apply(ledger, coalesce(ledger, {}, {}, MeterPolicy(), NOON + 2 * HOUR_US, 100), NOON)
    order = WriteOff("audit-1", NOON, NOON + 10 * SECOND_US)
    receipts = write_off(ledger, 3, NOON // 1000, "ghost", order, PREFIX).receipts
    assert sorted(receipt.transaction_id for receipt in receipts) == [f"{PREFIX}0", f"{PREFIX}1", f"{PREFIX}2"]
    assert sorted((receipt.calls, receipt.cents) for receipt in receipts) == [(0, "0"), (0, "0"), (3, "300")]


def test_an_order_moves_the_position_past_itself_and_is_no_call() -> None:
    ledger = ledgers_of([("ghost", 0)])
    received = ledger.position.counters.received
    given_up(ledger, "nobody")
    assert ledger.position.next == 2
    assert ledger.position.counters.received == received


@given(
    calls=st.lists(st.tuples(st.sampled_from(["ghost", "spirit", "known"]), st.integers(0, 20)), max_size=20),
    until=st.integers(-1, 21),
)
def test_after_any_write_off_the_ledger_adds_up(calls: list[tuple[str, int]], until: int) -> None:
    """`given_up` verifies conservation; the written-off amount is exactly what was held for the customer."""
    ledger = ledgers_of(calls)
    given_up(ledger, "ghost", until=NOON + until * SECOND_US)
    expected = sum(1 for customer, second in calls if customer == "ghost" and second <= until)
    assert ledger.position.counters.written_off.calls == expected


def steps(ledger: LedgerState, order: WriteOff, limit: int, cut_after: int | None = None) -> list[Changes]:
    """The transactions of an order; after `cut_after` of them the worker dies, and does the next one again from the
    stored state.
    """
    offset, done = ledger.position.next, list[Changes]()
    while ledger.position.next == offset:
        changes = write_off(ledger, offset, NOON // 1000, "ghost", order, PREFIX, limit)
        if len(done) == cut_after:
            write_off(ledger, offset, NOON // 1000, "ghost", order, PREFIX, limit)  # computed, and never committed
        apply(ledger, changes, NOON)
        verify(ledger)
        done.append(changes)
    return done


@given(
    seconds=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    merge=st.booleans(),
    limit=st.integers(2, 9),
    cut_after=st.integers(0, 5),
)
def test_a_large_write_off_is_done_in_bounded_steps_with_the_same_result(
    seconds: list[int], merge: bool, limit: int, cut_after: int
) -> None:
    """Earlier one transaction had 864 000 receipts: with any bound, amount, receipts and end are the same."""
    ledger = ledgers_of([("ghost", second) for second in seconds])
    if merge:
        apply(ledger, coalesce(ledger, {}, {}, MeterPolicy(), NOON + 2 * HOUR_US, 5), NOON)
    order = WriteOff("audit-1", NOON, NOON + 100 * SECOND_US)
    done = steps(ledger, order, limit, cut_after)
    assert all(len(changes.windows) + len(changes.receipts) <= limit for changes in done)
    receipts = [receipt for changes in done for receipt in changes.receipts]
    named = [receipt.transaction_id for receipt in receipts]
    assert len(set(named)) == len(named) == len(set(seconds))
    assert sum(receipt.calls for receipt in receipts) == len(seconds)
    assert ledger.position.counters.written_off == Sum(len(seconds), Decimal(len(seconds)))
    assert not ledger.held


def matched(ledger: LedgerState, pattern: str) -> set[str]:
    """Apply an order by pattern; returns the customers whose usage stays."""
    order = WriteOff("audit-1", NOON, NOON + 100 * SECOND_US, match=pattern)
    apply(ledger, write_off(ledger, ledger.position.next, NOON // 1000, "", order, PREFIX), NOON)
    verify(ledger)
    return {window.customer_id for window in ledger.windows.values()}


def test_unattributed_usage_is_written_off_only_by_its_full_name() -> None:
    """In an earlier version `--match '*'` after a flood also wrote off valid usage of keys without a customer."""
    ledger = ledgers_of([("attack-1", 0), ("Attack-2", 0), ("unattributed:key-1", 0), ("unattributed:key-2", 1)])
    assert matched(ledger, "attack-*") == {"Attack-2", "unattributed:key-1", "unattributed:key-2"}
    assert matched(ledger, "[u]nattributed:*") == {"Attack-2", "unattributed:key-1", "unattributed:key-2"}
    assert matched(ledger, "*") == {"unattributed:key-1", "unattributed:key-2"}
    assert matched(ledger, "unattributed:*-1") == {"unattributed:key-2"}


NAMES = st.builds(str.__add__, st.sampled_from(["", "unattributed:", "unattributed"]), st.text("ab:*", max_size=8))
PATTERNS = st.builds(str.__add__, st.sampled_from(["", "unattributed:", "*", "?"]), st.text("ab*?[]:", max_size=8))


@given(NAMES, PATTERNS)
def test_a_pattern_means_the_same_as_in_a_shell_but_never_matches_unattributed_usage(name: str, pattern: str) -> None:
    unseen = name.startswith("unattributed:") and not pattern.startswith("unattributed:")
    assert meant_by(pattern)(name) == (fnmatchcase(name, pattern) and not unseen)
