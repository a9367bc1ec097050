"""Customer mappings: what a request changes, and what no request can change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.set_mapping import (
    KEEP_US,
    KEPT_US,
    KEPT_VERSIONS,
    MAX_VERSIONS,
    REQUESTED,
    TOO_EARLY,
    TOO_MANY,
    EndMappingRequest,
    MappingRequest,
    end_mapping,
    forgettable,
    in_force,
    set_mapping,
    shown,
    takes_effect,
)
from tests.support.payers import payer

NOW = 1_800_000_000 * SECOND_US + 250_000
LEAD = 5 * SECOND_US
EARLIEST = 1_800_000_006 * SECOND_US


def request_for(org: str, at: int | None = None, *, active: bool = True, plan: str = "ai_basic") -> MappingRequest:
    return MappingRequest("customer", org, "tenant", plan, active, effective_from=at)


def record_of(*posts: tuple[int, MappingRequest]) -> CustomerRecord:
    """The record after requests, each at its own time."""
    record = None
    for now, request in posts:
        record = set_mapping(record, request, now, LEAD)
    assert record is not None
    return record


def orgs(record: CustomerRecord) -> list[str]:
    return [version.lago_customer_id for version in record.versions]


def test_the_first_mapping_covers_everything_before_it() -> None:
    record = set_mapping(None, request_for("a"), NOW, LEAD)
    assert record.versions == (MappingVersion(EARLIEST, "a", "tenant", updated_at=NOW, soon=True),)
    assert (record.created_at, record.updated_at) == (NOW, NOW)
    assert payer(record, 0) == payer(record, NOW) == payer(record, NOW + HOUR_US) == "a"


@pytest.mark.parametrize("at", [1_000_000_000 * SECOND_US, NOW, NOW + HOUR_US])
def test_a_first_mapping_may_start_at_any_time_and_starts_on_a_whole_second(at: int) -> None:
    record = set_mapping(None, request_for("a", at), NOW, LEAD)
    assert record.versions[0].effective_from == at - at % SECOND_US


def test_a_change_applies_from_the_first_whole_second_after_the_delay() -> None:
    #  ... a ...  now    now+lead  EARLIEST
    #  -----------|---------|---------|--- b --->
    record = record_of((NOW - HOUR_US, request_for("a")), (NOW, request_for("b")))
    assert payer(record, EARLIEST - 1) == "a"
    assert payer(record, EARLIEST) == "b"
    assert (record.created_at, record.updated_at) == (NOW - HOUR_US, NOW)


def test_a_delay_that_ends_on_a_whole_second_is_not_rounded_up() -> None:
    assert takes_effect(request_for("a"), NOW - 250_000, LEAD) == EARLIEST - SECOND_US


def test_a_request_for_the_mapping_in_force_writes_nothing() -> None:
    first = record_of((NOW - HOUR_US, request_for("a")))
    assert set_mapping(first, request_for("a"), NOW, LEAD) is first
    changed = set_mapping(first, request_for("b"), NOW, LEAD)
    assert set_mapping(changed, request_for("b"), NOW + SECOND_US, LEAD) is changed
    assert set_mapping(changed, request_for("b"), NOW, LEAD) is changed


def test_every_field_of_a_mapping_counts_as_a_change() -> None:
    first = record_of((NOW - HOUR_US, request_for("a")))
    for request in (
        request_for("a", plan="ai_pro"),
        request_for("a", active=False),
        MappingRequest("customer", "a", "other"),
        MappingRequest("customer", "a", "tenant", external_subscription_id="sub"),
        MappingRequest("customer", "a", "tenant", id_kind="team"),
    ):
        assert len(set_mapping(first, request, NOW, LEAD).versions) == 2, request


def test_every_field_of_a_version_comes_from_its_request_or_is_set_by_the_rule() -> None:
    """A field that the request lacks would be lost, also when another org takes the mapping over."""
    of_the_rule = {"effective_from", "updated_at", "deleted", "soon", "instead_of"}
    assert {*REQUESTED, *of_the_rule} == {*MappingVersion.__struct_fields__}
    assert {*MappingRequest.__struct_fields__} - {*REQUESTED} == {"litellm_customer_id", "effective_from", "correct"}


def test_an_explicit_start_before_the_delay_is_refused_if_there_is_a_mapping() -> None:
    first = record_of((NOW - HOUR_US, request_for("a")))
    for at in (0, NOW, NOW + LEAD - 1, EARLIEST - 1):
        with pytest.raises(Rejected) as refusal:
            set_mapping(first, request_for("b", at), NOW, LEAD)
        assert refusal.value.reason == TOO_EARLY
    assert payer(set_mapping(first, request_for("b", EARLIEST), NOW, LEAD), EARLIEST) == "b"


def test_repeating_the_first_mapping_with_its_past_start_is_no_error() -> None:
    first = record_of((NOW - HOUR_US, request_for("a", NOW - 100 * HOUR_US)))
    assert set_mapping(first, request_for("a", NOW - 100 * HOUR_US), NOW, LEAD) is first


def test_a_request_for_an_unchanged_past_does_not_count_as_a_change_of_the_present() -> None:
    record = record_of((NOW - 9 * HOUR_US, request_for("a")), (NOW - HOUR_US, request_for("b")))
    with pytest.raises(Rejected, match=TOO_EARLY):
        set_mapping(record, request_for("a", NOW - 2 * HOUR_US), NOW, LEAD)


def test_a_version_with_the_same_start_replaces_the_earlier_one() -> None:
    at = NOW + HOUR_US
    record = record_of((NOW - HOUR_US, request_for("a")), (NOW, request_for("b", at)), (NOW, request_for("c", at)))
    assert orgs(record) == ["a", "c"]


def test_versions_are_ordered_by_their_start_for_any_order_of_requests() -> None:
    record = record_of(
        (NOW - HOUR_US, request_for("a")),
        (NOW, request_for("c", NOW + 2 * HOUR_US)),
        (NOW, request_for("b", NOW + HOUR_US)),
    )
    assert orgs(record) == ["a", "b", "c"]


def test_a_change_before_the_first_versions_own_start_keeps_what_that_version_covers_already() -> None:
    #   a (covers everything before its beginning)          a
    #  ---------------------------|--- b ---|-----------------> (a's beginning)
    record = record_of((NOW, request_for("a", NOW + HOUR_US)), (NOW + 1, request_for("b")))
    assert payer(record, EARLIEST - 1) == "a"
    assert payer(record, EARLIEST) == "b"
    assert payer(record, NOW + HOUR_US) == "a"


AHEAD = 3 * SECOND_US


@pytest.mark.parametrize("behind", [0, 250_000, SECOND_US, AHEAD, HOUR_US])
@pytest.mark.parametrize("org", ["a", "b", "c"])
def test_of_two_requests_the_later_written_one_wins_even_if_its_process_has_the_slower_clock(
    behind: int, org: str
) -> None:
    #  the first process' clock     now            its version of b
    #  -------------- a -------------|------------------|--- b, but no longer than it takes --->
    #  the second one's       now            now+lead
    first = record_of((NOW - 2 * HOUR_US, request_for("a")), (NOW, request_for("b")))
    second = set_mapping(first, request_for(org), NOW - behind, LEAD)
    assert payer(second, EARLIEST - 1) == "a"
    assert {payer(second, EARLIEST), payer(second, NOW + 99 * HOUR_US)} == {org}
    third = set_mapping(second, request_for("d"), NOW - behind - 1, LEAD)
    assert {payer(third, EARLIEST), payer(third, NOW + 99 * HOUR_US)} == {"d"}


@pytest.mark.parametrize("behind", [0, SECOND_US, AHEAD])
def test_an_end_by_the_slower_clock_applies_and_a_later_request_overrides_it(behind: int) -> None:
    first = record_of((NOW - 2 * HOUR_US, request_for("a")), (NOW, request_for("b")))
    for ending in (EndMappingRequest(), EndMappingRequest(deleted=True)):
        ended = end_mapping(first, ending, NOW - behind, LEAD)
        assert payer(ended, EARLIEST - 1) == "a"
        assert {payer(ended, EARLIEST), payer(ended, NOW + 99 * HOUR_US)} == {None}
        assert {
            payer(set_mapping(ended, request_for("c"), NOW - behind, LEAD), at) for at in (EARLIEST, NOW + HOUR_US)
        } == {"c"}


def test_a_version_announced_for_an_explicit_time_stays_for_any_slower_clock() -> None:
    announced = record_of((NOW - 2 * HOUR_US, request_for("a")), (NOW, request_for("b", NOW + HOUR_US)))
    changed = set_mapping(announced, request_for("c"), NOW - AHEAD, LEAD)
    assert [payer(changed, at) for at in (EARLIEST - 1, EARLIEST, NOW + HOUR_US)] == ["a", "c", "b"]


def test_usage_in_a_pause_belongs_to_the_version_that_starts_first_and_not_to_the_first_announced() -> None:
    stopped = record_of((NOW - 9 * HOUR_US, request_for("a")), (NOW - 8 * HOUR_US, request_for("a", active=False)))
    planned = set_mapping(stopped, request_for("b", NOW + 9 * HOUR_US), NOW - HOUR_US, LEAD)
    assert (payer(planned, NOW, NOW), payer(planned, NOW, NOW + 9 * HOUR_US)) == (None, "b")
    changed = set_mapping(planned, request_for("c"), NOW, LEAD)
    assert [payer(changed, at, NOW + 99 * HOUR_US) for at in (NOW, EARLIEST, NOW + 9 * HOUR_US)] == ["c", "c", "b"]
    assert payer(changed, NOW, NOW) is None


def test_old_versions_are_removed_once_no_recent_usage_needs_them() -> None:
    for apart_days, kept in ((1, 20), (2, 17), (9, KEPT_VERSIONS)):
        posts = [(NOW + number * apart_days * 24 * HOUR_US, request_for(f"org-{number}")) for number in range(20)]
        assert orgs(record_of(*posts)) == [f"org-{number}" for number in range(20 - kept, 20)]


def test_versions_that_recent_usage_needs_are_kept_beyond_the_limit_and_too_many_are_refused() -> None:
    posts = [(NOW + minute * 60 * SECOND_US, request_for(f"org-{minute}")) for minute in range(MAX_VERSIONS)]
    record = record_of(*posts)
    assert len(record.versions) == MAX_VERSIONS
    now = NOW + 2 * HOUR_US
    with pytest.raises(Rejected) as refusal:
        set_mapping(record, request_for("one-more"), now, LEAD)
    assert refusal.value.reason == TOO_MANY
    assert len(set_mapping(record, request_for("one-more"), now + KEEP_US, LEAD).versions) == MAX_VERSIONS
    assert len(set_mapping(record, request_for("one-more"), now + KEPT_US, LEAD).versions) == KEPT_VERSIONS


def test_an_ended_mapping_bills_usage_before_its_end_and_holds_the_rest() -> None:
    #  ... a ...  now    now+lead  EARLIEST
    #  -----------|---------|---------|  held
    for deleted in (False, True):
        ended = end_mapping(record_of((NOW - HOUR_US, request_for("a"))), EndMappingRequest(deleted), NOW, LEAD)
        assert payer(ended, 0) == payer(ended, EARLIEST - 1) == "a"
        assert payer(ended, EARLIEST) is None


def test_an_end_withdraws_every_later_announcement() -> None:
    """A person who stops billing a customer does not expect it to start again automatically."""
    planned = record_of((NOW - HOUR_US, request_for("a")), (NOW, request_for("b", NOW + 9 * HOUR_US)))
    for ending in (
        EndMappingRequest(),
        EndMappingRequest(deleted=True),
        EndMappingRequest(effective_from=NOW + HOUR_US),
    ):
        ended = end_mapping(planned, ending, NOW, LEAD)
        assert payer(ended, NOW + 99 * HOUR_US) is None
        assert payer(ended, EARLIEST - 1) == "a"


@pytest.mark.parametrize("deleted", [False, True])
def test_usage_in_a_pause_stays_held_if_the_announced_mapping_is_withdrawn(deleted: bool) -> None:
    stopped = record_of((NOW - 9 * HOUR_US, request_for("a")), (NOW - 8 * HOUR_US, request_for("a", active=False)))
    planned = set_mapping(stopped, request_for("b", NOW + 9 * HOUR_US), NOW - HOUR_US, LEAD)
    withdrawn = end_mapping(planned, EndMappingRequest(deleted), NOW, LEAD)
    assert payer(withdrawn, NOW) is None
    assert payer(set_mapping(withdrawn, request_for("c"), NOW + HOUR_US, LEAD), NOW) == "c"


def test_a_second_end_changes_nothing_and_an_inactive_mapping_can_still_be_deleted() -> None:
    first = record_of((NOW - HOUR_US, request_for("a")))
    stopped = end_mapping(first, EndMappingRequest(), NOW, LEAD)
    assert end_mapping(stopped, EndMappingRequest(), NOW + SECOND_US, LEAD) is stopped
    deleted = end_mapping(stopped, EndMappingRequest(deleted=True), NOW + SECOND_US, LEAD)
    assert deleted is not stopped
    for ending in (EndMappingRequest(), EndMappingRequest(deleted=True)):
        assert end_mapping(deleted, ending, NOW + HOUR_US, LEAD) is deleted


def test_an_end_before_the_delay_is_refused() -> None:
    with pytest.raises(Rejected, match=TOO_EARLY):
        end_mapping(
            record_of((NOW - HOUR_US, request_for("a"))), EndMappingRequest(effective_from=EARLIEST - 1), NOW, LEAD
        )


def test_after_a_deletion_no_mapping_is_shown_until_the_customer_is_mapped_again() -> None:
    """Usage held in between goes to the next mapping, as for a customer that was never mapped."""
    deleted = end_mapping(record_of((NOW - HOUR_US, request_for("a"))), EndMappingRequest(deleted=True), NOW, LEAD)
    before = shown(deleted.versions, EARLIEST - 1)
    assert before is not None
    assert before.lago_customer_id == "a"
    assert shown(deleted.versions, EARLIEST) is None
    again = set_mapping(deleted, request_for("b"), NOW + HOUR_US, LEAD)
    result = shown(again.versions, NOW + HOUR_US)
    assert result is not None
    assert result.lago_customer_id == "b"
    assert payer(again, EARLIEST) == "b"
    assert payer(again, EARLIEST - 1) == "a"


def test_billing_can_be_stopped_for_any_number_of_versions() -> None:
    record = record_of(
        *((NOW + minute * 60 * SECOND_US, request_for(f"org-{minute}")) for minute in range(MAX_VERSIONS))
    )
    now = NOW + 2 * HOUR_US
    assert payer(end_mapping(record, EndMappingRequest(), now, LEAD), now + HOUR_US) is None


def test_a_customers_record_may_be_removed_once_its_deletion_is_old_enough() -> None:
    record = record_of((NOW - HOUR_US, request_for("a")))
    assert not forgettable(end_mapping(record, EndMappingRequest(), NOW, LEAD), NOW + 99 * HOUR_US)
    deleted = end_mapping(record, EndMappingRequest(deleted=True), NOW, LEAD)
    assert not forgettable(deleted, EARLIEST)
    assert forgettable(deleted, EARLIEST + 1)
    assert not forgettable(set_mapping(deleted, request_for("b"), NOW + HOUR_US, LEAD), NOW + 99 * HOUR_US)


REQUESTS = st.tuples(
    st.integers(0, 90 * 60 * SECOND_US),  # pause before it
    st.sampled_from(["a", "b", "c", "end", "delete"]),
    st.booleans(),
    st.none() | st.integers(-3600 * SECOND_US, 5 * 3600 * SECOND_US),  # its beginning, from now
)


@given(st.lists(REQUESTS, min_size=1, max_size=25), st.lists(st.integers(-100, 400), min_size=1, max_size=30))
def test_no_request_changes_who_pays_for_usage_that_may_be_decided_already(
    requests: list[tuple[int, str, bool, int | None]], probes_minutes: list[int]
) -> None:
    """For usage of the last 48 hours up to now plus the delay; held usage without a payer may find one."""
    record: CustomerRecord | None = None
    now = NOW
    for pause, org, active, offset in requests:
        now += pause
        at = None if offset is None else now + offset
        before, request = record, request_for(org, at, active=active)
        ending = EndMappingRequest(org == "delete", at)
        if org in ("end", "delete") and before is None:
            continue
        try:
            if before is not None and org in ("end", "delete"):
                record = end_mapping(before, ending, now, LEAD)
            else:
                record = set_mapping(before, request, now, LEAD)
        except Rejected as refusal:
            if refusal.reason not in {TOO_EARLY, TOO_MANY}:
                raise
            continue
        begins = takes_effect(request, now, LEAD, before)
        beginnings = [version.effective_from for version in record.versions]
        assert beginnings == sorted(set(beginnings))
        assert all(beginning % SECOND_US == 0 for beginning in beginnings)
        if before is None:
            continue
        if record is not before and org in ("end", "delete"):
            assert record.versions[-1].effective_from == begins
            assert payer(record, begins) is None
        elif record is not before:
            assert in_force(record.versions, begins).lago_customer_id == org
            assert in_force(record.versions, begins).is_active == active
        for minutes in probes_minutes:
            moment = now - minutes * 60 * SECOND_US
            if now - KEEP_US <= moment < now + LEAD and (paid := payer(before, moment, now)) is not None:
                assert payer(record, moment, now) == paid
