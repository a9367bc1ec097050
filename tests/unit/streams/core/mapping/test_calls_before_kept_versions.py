"""Usage from before all kept mapping versions is held: no remaining version says who paid at that time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.operations.unplaceable_usage import REASONS
from schemas.customers import CustomerRecord, OrgRecord, Period
from schemas.errors import Rejected
from schemas.moments import HOUR_US
from streams.core.mapping.held_reasons import HELD_REASONS, NOT_KEPT, WRONG_KIND
from streams.core.mapping.resolve import Resolver, resolve, resolve_held
from streams.core.mapping.set_mapping import (
    KEPT_VERSIONS,
    MAX_VERSIONS,
    EndMappingRequest,
    MappingRequest,
    end_mapping,
    set_mapping,
)
from streams.core.mapping.time_spans import borders
from tests.support.calls import NOON
from tests.unit.streams.core.mapping.test_held_usage_of_removed_versions import LEAD, held, resolved

DAY_US = 24 * HOUR_US
EVER = 1 << 60
ORGS = {name: OrgRecord(name, periods=(Period(f"sub_{name}", 0),)) for name in "abcdefghijk"}


def request_for(org: str, begins_us: int | None = None, kind: str = "", plan: str = "ai_basic") -> MappingRequest:
    return MappingRequest("acme", org, "t", plan, id_kind=kind, effective_from=begins_us)


def moved(orgs: str, *, first_us: int = NOON, apart_us: int = 10 * DAY_US) -> CustomerRecord:
    """The customer moves from org to org, every ten days."""
    record = None
    for number, org in enumerate(orgs):
        record = set_mapping(record, request_for(org), first_us + number * apart_us, LEAD)
    assert record is not None
    return record


def payer(record: CustomerRecord, at_us: int) -> tuple[str, str]:
    found = resolve(record, at_us, "user", ORGS)
    return found.subscription, found.held


def test_a_call_before_all_kept_versions_is_held_and_never_billed_to_the_oldest() -> None:
    """
    a  b  c  d  e  f  g  h  i     a is dropped
    ^ a call of then comes now
    """
    record = moved("abcdefghi")
    assert (len(record.versions), record.versions[0].lago_customer_id) == (KEPT_VERSIONS, "b")
    assert record.known_from == record.versions[0].effective_from
    assert payer(record, record.known_from - 1) == payer(record, NOON) == ("", NOT_KEPT)
    assert payer(record, record.known_from) == ("sub_b", "")
    assert Resolver({"acme": record}, ORGS)("acme", NOON, "user").held == NOT_KEPT
    assert record.known_from in borders(record, ORGS)


def test_with_up_to_eight_versions_every_time_is_covered() -> None:
    record = moved("abcdefgh")
    assert record.known_from == 0
    assert payer(record, NOON - 99 * DAY_US) == ("sub_a", "")


def test_a_removed_version_equal_to_the_next_one_is_not_needed() -> None:
    """For example one with another plan for the same org."""
    record = None
    for number in range(12):
        record = set_mapping(record, request_for("a", plan=f"plan-{number}"), NOON + number * 10 * DAY_US, LEAD)
    assert record is not None
    assert (len(record.versions), record.known_from) == (KEPT_VERSIONS, 0)
    assert payer(record, NOON) == ("sub_a", "")
    other = moved("bacdefghij")
    assert (other.versions[0].lago_customer_id, other.known_from) == ("c", other.versions[0].effective_from)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "", "-"]), st.integers(1, 40), st.sampled_from(["", "user", "team"])),
        min_size=1,
        max_size=20,
    ),
    st.integers(-5, 400),
)
def test_after_any_removal_the_kept_versions_give_the_same_answer_or_none(
    changes: list[tuple[str, int, str]], day: int
) -> None:
    """Compared with a record that keeps everything."""
    whole: CustomerRecord | None = None
    kept: CustomerRecord | None = None
    now_us = NOON
    for org, days, kind in changes:
        now_us += days * DAY_US
        if org in ("a", "b"):
            whole = set_mapping(whole, request_for(org, kind=kind), now_us, LEAD, EVER)
            kept = set_mapping(kept, request_for(org, kind=kind), now_us, LEAD)
        elif whole is not None and kept is not None:
            whole = end_mapping(whole, EndMappingRequest(deleted=org == "-"), now_us, LEAD, EVER)
            kept = end_mapping(kept, EndMappingRequest(deleted=org == "-"), now_us, LEAD)
    if whole is None or kept is None:
        return
    at_us = NOON + day * DAY_US
    found = resolve(kept, at_us, "user", ORGS, now_us=now_us + HOUR_US)
    if found.held != NOT_KEPT:
        assert found == resolve(whole, at_us, "user", ORGS, now_us=now_us + HOUR_US)
    else:
        assert len(whole.versions) > KEPT_VERSIONS
        assert at_us < now_us - 31 * DAY_US


def test_a_mapping_from_that_time_on_says_who_pays_and_is_accepted_although_it_is_in_the_past() -> None:
    record = moved("abcdefghi")
    ledger = held(record, ORGS)
    assert resolved(ledger, record, ORGS) == ("", "", True)
    now_us = NOON + 99 * DAY_US
    result = set_mapping(record, request_for("k", NOON - DAY_US), now_us, LEAD)
    assert result.versions[1:] == record.versions
    assert (result.known_from, result.versions[0].lago_customer_id) == (NOON - DAY_US, "k")
    assert set_mapping(result, request_for("k", NOON - DAY_US), now_us + DAY_US, LEAD) is result, "twice is once"
    with pytest.raises(Rejected, match="may be billed already"):
        set_mapping(result, request_for("a", NOON - DAY_US), now_us, LEAD)
    with pytest.raises(Rejected, match="may be billed already"):
        set_mapping(record, request_for("k", record.known_from), now_us, LEAD)
    assert payer(result, NOON - DAY_US - 1) == ("", NOT_KEPT)
    assert resolved(ledger, result, ORGS) == ("k", "sub_k", False)


def test_the_number_of_versions_with_a_start_in_the_past_is_bounded() -> None:
    record = moved("ab" * (MAX_VERSIONS // 2) + "a", apart_us=HOUR_US)
    later = set_mapping(record, request_for("c"), NOON + 70 * DAY_US, LEAD)
    assert (len(later.versions), later.known_from > 0) == (KEPT_VERSIONS, True)
    full = later
    for number in range(MAX_VERSIONS - KEPT_VERSIONS):
        full = set_mapping(full, request_for("k", NOON - number * DAY_US), NOON + 71 * DAY_US, LEAD)
    with pytest.raises(Rejected, match="versions are still needed"):
        set_mapping(full, request_for("k", NOON - 99 * DAY_US), NOON + 71 * DAY_US, LEAD)


def test_usage_held_without_a_payer_before_its_version_was_removed_goes_to_the_next_that_fits() -> None:
    """Neither its own version nor the ones after it covered the call: that was certain, and is no guess."""
    record = None
    for number, org in enumerate("abcdefghi"):
        record = set_mapping(record, request_for(org, kind="team"), NOON + number * 10 * DAY_US, LEAD)
    assert record is not None
    right = set_mapping(record, request_for("k"), NOON + 90 * DAY_US, LEAD)
    at_us, now_us = NOON, NOON + 91 * DAY_US
    assert right.known_from > at_us
    assert resolve_held(right, "", at_us, "user", ORGS, now_us=now_us, held=WRONG_KIND).org_id == "k"
    assert resolve_held(right, "", at_us, "user", ORGS, now_us=now_us, held=NOT_KEPT).held == NOT_KEPT
    assert resolve_held(right, "a", at_us, "user", ORGS, now_us=now_us, held=WRONG_KIND).org_id == "a"


def test_the_reason_is_counted_and_explained() -> None:
    assert NOT_KEPT in HELD_REASONS
    assert NOT_KEPT in REASONS


def test_usage_held_for_an_org_does_not_go_to_a_subscription_that_a_later_version_names() -> None:
    record = moved("ab")
    named = MappingRequest("acme", "a", "t", external_subscription_id="seats")
    record = set_mapping(record, named, NOON + 20 * DAY_US, LEAD)
    for number, org in enumerate("cdefghi", 3):
        record = set_mapping(record, request_for(org), NOON + number * 10 * DAY_US, LEAD)
    assert record.versions[0].external_subscription_id == "seats"
    found = resolve_held(record, "a", NOON, "user", ORGS, now_us=NOON + 99 * DAY_US, held="no_subscription")
    assert found.subscription == "sub_a"
