"""Usage held for an org stays that org's, also after the mapping version that said so was removed."""

from decimal import Decimal

import pytest

from schemas.customers import CustomerRecord, OrgRecord, Period
from schemas.ledger import Position
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from streams.core.mapping.resolve import Resolver
from streams.core.mapping.set_mapping import EndMappingRequest, MappingRequest, end_mapping, set_mapping
from streams.core.metering.close_window import coalesce, release
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import apply
from tests.support.calls import NOON, raw, slp

POLICY = MeterPolicy()
LEAD = 5 * SECOND_US
DAY_US = 24 * HOUR_US
LATER = NOON + 40 * DAY_US
SUBSCRIBED = {name: OrgRecord(name, periods=(Period(f"sub_{name}", 0),)) for name in ("a", "b")}
A_HAS_ENDED = {"a": OrgRecord("a", periods=(Period("old", 0, 1),)), "b": SUBSCRIBED["b"]}
Orgs = dict[str, OrgRecord]


def request_for(org: str, *, correct: bool | None = None) -> MappingRequest:
    return MappingRequest("acme", org, "tenant", correct=correct)


def mapped(*orgs: str, begins_us: int = NOON - DAY_US, apart_us: int = DAY_US) -> CustomerRecord:
    """The customer moves from org to org."""
    record = None
    for number, org in enumerate(orgs):
        record = set_mapping(record, request_for(org), begins_us + number * apart_us, LEAD)
    assert record is not None
    return record


def held(record: CustomerRecord | None, orgs: Orgs) -> LedgerState:
    """A call at noon, of 9 USD, that is held."""
    ledger = LedgerState(Position())
    resolver = Resolver({} if record is None else {"acme": record}, orgs)
    resolver.now_us = NOON
    apply(ledger, Fold(POLICY, "d-t-0-")(ledger, [raw(0, slp(0, at_us=NOON, cost="9"))], resolver), NOON)
    (window,) = ledger.windows.values()
    assert window.held
    return ledger


def resolved(ledger: LedgerState, record: CustomerRecord | None, orgs: Orgs) -> tuple[str, str, bool]:
    """The org and the subscription of the call, and whether it is held, after every way to resolve it."""
    customers = {} if record is None else {"acme": record}
    while not (changes := coalesce(ledger, customers, orgs, POLICY, LATER, 9)).empty:
        apply(ledger, changes, LATER)
    while not (changes := release(ledger, customers, orgs, POLICY, 9, LATER)).empty:
        apply(ledger, changes, LATER)
    (window,) = ledger.windows.values()
    assert window.cost == Decimal(9)
    return window.org_id, window.subscription, bool(window.held)


@pytest.mark.parametrize("had", [A_HAS_ENDED, {"b": SUBSCRIBED["b"]}])
def test_after_its_version_was_removed_no_other_org_gets_the_usage_held_for_the_old_org(had: Orgs) -> None:
    ledger = held(mapped("a"), had)
    assert resolved(ledger, None, had) == ("a", "", True)
    again = mapped("b", begins_us=LATER - DAY_US)
    assert resolved(ledger, again, had) == ("a", "", True)
    assert resolved(ledger, again, SUBSCRIBED) == ("a", "sub_a", False), "the old org pays once it can"


def test_a_record_created_again_for_another_id_kind_takes_none_of_it_either() -> None:
    ledger = held(mapped("a"), A_HAS_ENDED)
    again = set_mapping(None, MappingRequest("acme", "b", "tenant", id_kind="team"), LATER - DAY_US, LEAD)
    assert resolved(ledger, again, A_HAS_ENDED) == ("a", "", True)


def test_usage_held_without_an_org_goes_to_the_first_mapping() -> None:
    assert resolved(held(None, {}), mapped("b", begins_us=LATER - DAY_US), SUBSCRIBED) == ("b", "sub_b", False)


@pytest.mark.parametrize("last", ["b", "a"])
def test_after_many_moves_usage_held_for_the_first_org_stays_that_orgs(last: str) -> None:
    ledger = held(mapped("a"), A_HAS_ENDED)
    moved = mapped("a", *"bcdefghi", last, apart_us=9 * DAY_US)
    assert moved.versions[0].lago_customer_id != "a", "its version is no longer kept"
    assert resolved(ledger, moved, A_HAS_ENDED) == ("a", "", True)
    assert resolved(ledger, moved, SUBSCRIBED) == ("a", "sub_a", False)


def test_an_org_that_never_had_a_subscription_keeps_its_held_usage_too() -> None:
    """A change from one org to another is a move, also in a record that no longer names the first."""
    ledger = held(mapped("a"), {"c": SUBSCRIBED["b"]})
    moved = mapped("a", *"bcdefghij", apart_us=9 * DAY_US)
    assert resolved(ledger, moved, {"b": SUBSCRIBED["b"]}) == ("a", "", True)


@pytest.mark.parametrize("began_us", [NOON - DAY_US, NOON + DAY_US])
def test_a_correction_takes_the_usage_held_under_the_mistake(began_us: int) -> None:
    """Also usage from before the first mapping, which that mapping covers."""
    wrong = mapped("a", begins_us=began_us)
    ledger = held(wrong, A_HAS_ENDED)
    other = set_mapping(wrong, request_for("c", correct=True), began_us + 2 * HOUR_US, LEAD)
    right = set_mapping(other, request_for("b", correct=True), began_us + 3 * HOUR_US, LEAD)
    assert right.versions[0].instead_of == ("a", "c")
    assert resolved(ledger, right, A_HAS_ENDED) == ("b", "sub_b", False)
    assert set_mapping(right, request_for("b", correct=True), began_us + 4 * HOUR_US, LEAD) is right
    assert set_mapping(right, request_for("b"), began_us + 4 * HOUR_US, LEAD) is right


def test_a_correction_to_another_id_kind_leaves_nothing_with_the_mistake() -> None:
    wrong = mapped("a", begins_us=NOON + DAY_US)
    ledger = held(wrong, A_HAS_ENDED)
    request = MappingRequest("acme", "a", "tenant", id_kind="team", correct=True)
    assert resolved(ledger, set_mapping(wrong, request, NOON + 2 * DAY_US, LEAD), SUBSCRIBED) == ("", "", True)


def test_usage_held_for_a_removed_org_can_be_given_to_another_by_a_correction() -> None:
    """Map the customer to the old org again, and correct that mapping."""
    ledger = held(mapped("a"), A_HAS_ENDED)
    again = set_mapping(None, request_for("a"), LATER - DAY_US, LEAD)
    right = set_mapping(again, request_for("b", correct=True), LATER - HOUR_US, LEAD)
    assert resolved(ledger, right, A_HAS_ENDED) == ("b", "sub_b", False)


def test_a_deleted_mapping_that_still_has_its_record_leaves_the_same_usage() -> None:
    """To the next org if its own never had a subscription."""
    first = mapped("a", begins_us=NOON + DAY_US)
    ledger = held(first, {})
    deleted = end_mapping(first, EndMappingRequest(deleted=True), NOON + 2 * DAY_US, LEAD)
    after = set_mapping(deleted, request_for("b"), NOON + 3 * DAY_US, LEAD)
    assert resolved(ledger, after, {"b": SUBSCRIBED["b"]}) == ("b", "sub_b", False)
