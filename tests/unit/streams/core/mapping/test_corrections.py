"""A wrong mapping is corrected from its own start on; a move to another org leaves the past with the old org."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.billing.subscription_discovery import SubscriptionDiscovery
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import Rejected, Unavailable
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.correction import BEGINS_ELSEWHERE
from streams.core.mapping.held_reasons import INACTIVE, NO_SUBSCRIPTION, WRONG_KIND
from streams.core.mapping.resolve import resolve
from streams.core.mapping.set_mapping import EndMappingRequest, MappingRequest, corrected_by, end_mapping, set_mapping

NOW = 1_800_000_000 * SECOND_US
LEAD = 5 * SECOND_US
RIGHT = {"right": OrgRecord("right", periods=(Period("sub", 0),))}


def request_for(
    org: str, at: int | None = None, *, correct: bool | None = None, kind: str = "", sub: str = ""
) -> MappingRequest:
    return MappingRequest("c", org, "t", "ai_basic", True, sub, kind, at, correct)


def typo() -> CustomerRecord:
    return set_mapping(None, request_for("org-typo"), NOW, LEAD)


def later(record: CustomerRecord, request: MappingRequest, *unknown: str, after: int = HOUR_US) -> CustomerRecord:
    return set_mapping(record, request, NOW + after, LEAD, unknown=unknown)


@pytest.mark.parametrize("after", [SECOND_US, 60 * SECOND_US, 90 * 24 * HOUR_US])
def test_usage_held_under_an_org_that_does_not_exist_goes_to_the_right_one(after: int) -> None:
    """In an earlier version it was held forever: an hour or ninety days later only a write-off was left."""
    record = later(typo(), request_for("right"), "org-typo", after=after)
    assert [one.lago_customer_id for one in record.versions] == ["right"]
    assert record.versions[0].effective_from == typo().versions[0].effective_from
    for at in (0, NOW, NOW + after, NOW + 2 * after):
        assert resolve(record, at, "user", RIGHT).subscription == "sub"


def test_a_move_leaves_the_past_with_the_old_org() -> None:
    record = later(set_mapping(None, request_for("a"), NOW, LEAD), request_for("right"))
    assert [one.lago_customer_id for one in record.versions] == ["a", "right"]
    assert resolve(record, NOW, "user", RIGHT).held == NO_SUBSCRIPTION


def test_without_an_answer_from_lago_a_mistake_is_followed_by_a_version_and_not_replaced() -> None:
    assert len(later(typo(), request_for("right")).versions) == 2


def test_a_mistake_in_the_middle_is_replaced_alone() -> None:
    first = set_mapping(None, request_for("a"), NOW, LEAD)
    wrong = later(first, request_for("org-typo"))
    record = later(wrong, request_for("right"), "org-typo", after=2 * HOUR_US)
    assert [one.lago_customer_id for one in record.versions] == ["a", "right"]
    assert record.versions[1].effective_from == wrong.versions[1].effective_from


def test_a_mistake_that_is_not_in_force_yet_is_replaced_too() -> None:
    """Within the mapping delay: a person who sees the typo posts again at once."""
    first = set_mapping(None, request_for("a"), NOW, LEAD)
    wrong = later(first, request_for("org-typo"))
    record = later(wrong, request_for("right"), "org-typo", after=HOUR_US + SECOND_US)
    assert [one.lago_customer_id for one in record.versions] == ["a", "right"]
    assert record.versions[1].effective_from == wrong.versions[1].effective_from


def test_a_mapping_that_names_a_subscription_is_no_automatic_mistake_because_it_may_have_been_billed() -> None:
    record = set_mapping(None, request_for("org-typo", sub="sub_x"), NOW, LEAD)
    assert len(later(record, request_for("right"), "org-typo").versions) == 2
    assert len(later(record, request_for("right", correct=True)).versions) == 1


def test_an_announced_change_corrects_nothing() -> None:
    assert len(later(typo(), request_for("right", NOW + 9 * HOUR_US), "org-typo").versions) == 2


def test_an_explicit_request_decides_whether_it_is_a_correction() -> None:
    known = set_mapping(None, request_for("a"), NOW, LEAD)
    assert [one.lago_customer_id for one in later(known, request_for("b", correct=True)).versions] == ["b"]
    assert len(later(typo(), request_for("right", correct=False), "org-typo").versions) == 2
    same = later(known, request_for("b", correct=True))
    assert later(same, request_for("b", correct=True), after=2 * HOUR_US) is same
    begins = known.versions[0].effective_from
    assert later(known, request_for("b", begins, correct=True)).versions[0].effective_from == begins
    with pytest.raises(Rejected, match=BEGINS_ELSEWHERE):
        later(known, request_for("b", begins + SECOND_US, correct=True))


def test_the_first_mapping_corrects_nothing() -> None:
    assert corrected_by(None, request_for("a", correct=True), NOW, LEAD) is None
    assert len(set_mapping(None, request_for("a", correct=True), NOW, LEAD).versions) == 1


def test_a_corrected_id_kind_takes_the_usage_held_under_the_wrong_one() -> None:
    wrong = set_mapping(None, request_for("right", kind="team"), NOW, LEAD)
    assert resolve(wrong, NOW, "user", RIGHT).held == WRONG_KIND
    record = later(wrong, request_for("right", kind="user"))
    assert resolve(record, NOW, "user", RIGHT).subscription == "sub"
    assert resolve(record, NOW, "team", RIGHT).subscription == "sub"  # as it was decided
    assert resolve(record, NOW + 2 * HOUR_US, "team", RIGHT).held == WRONG_KIND


def test_a_version_for_another_id_kind_counts_as_inactive() -> None:
    versions = (
        MappingVersion(10, "a", "t", id_kind="team"),
        MappingVersion(20, "b", "t", is_active=False),
        MappingVersion(30, "c", "t", id_kind="user"),
    )
    orgs = {name: OrgRecord(name, periods=(Period(name, 0),)) for name in "abc"}
    record = CustomerRecord("c", versions, 0, 0)
    preview_request_of = {
        (at, kind): resolve(record, at, kind, orgs) for at in (15, 25, 35) for kind in ("team", "user")
    }
    assert preview_request_of[15, "team"].subscription == "a"
    assert [preview_request_of[at, "user"].subscription for at in (15, 25, 35)] == ["c", "c", "c"]
    assert preview_request_of[25, "team"].held == preview_request_of[35, "team"].held == WRONG_KIND
    assert resolve(CustomerRecord("c", versions[:2], 0, 0), 25, "team", orgs).held == INACTIVE


def test_usage_of_a_deleted_mapping_goes_to_the_next_org_if_its_own_never_had_a_subscription() -> None:
    record = end_mapping(typo(), EndMappingRequest(deleted=True), NOW + HOUR_US, LEAD)
    record = later(record, request_for("right"), after=2 * HOUR_US)
    for at in (NOW, NOW + HOUR_US + 30 * SECOND_US, NOW + 3 * HOUR_US):
        assert resolve(record, at, "user", RIGHT).subscription == "sub"
    had = {**RIGHT, "org-typo": OrgRecord("org-typo", currency="EUR", periods=(Period("old", 0),))}
    assert resolve(record, NOW, "user", had).org_id == "org-typo"
    subscribed = {**RIGHT, "org-typo": OrgRecord("org-typo", periods=(Period("old", 0),))}
    assert resolve(record, NOW, "user", subscribed).subscription == "old"


def test_a_later_version_of_the_same_org_bills_what_the_earlier_could_not() -> None:
    record = later(set_mapping(None, request_for("a"), NOW, LEAD), request_for("a", sub="sub_2"))
    target = resolve(record, NOW, "user", {})
    assert (target.org_id, target.subscription) == ("a", "sub_2")
    moved = later(
        later(set_mapping(None, request_for("a"), NOW, LEAD), request_for("b")),
        request_for("a", sub="sub_2"),
        after=2 * HOUR_US,
    )
    assert resolve(moved, NOW, "user", {}).held == NO_SUBSCRIPTION  # a move lies between


@given(
    orgs=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5),
    at=st.integers(-10, 60),
    kind=st.sampled_from(["user", "team"]),
)
def test_usage_with_a_target_is_moved_only_by_a_correction(orgs: list[str], at: int, kind: str) -> None:
    """Every org is known and subscribed: each time up to now keeps its payer after every further request."""
    known = {name: OrgRecord(name, periods=(Period(name, 0),)) for name in "ab"}
    record, at_us = None, NOW + at * 60 * SECOND_US
    decided: str | None = None
    for number, org in enumerate(orgs):
        now = NOW + number * 10 * 60 * SECOND_US
        if record is not None and at_us < now:
            decided = resolve(record, at_us, kind, known).subscription
        record = set_mapping(record, request_for(org, kind="" if number % 2 else "user"), now, LEAD)
        if decided:
            assert resolve(record, at_us, kind, known).subscription == decided


class Directory:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def customer(self, _: str) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "is_unknown"), [(None, True), (SimpleNamespace(), False), (Unavailable("timeout", "no answer"), None)]
)
async def test_an_org_counts_as_unknown_only_if_lago_says_so(answer: object, *, is_unknown: bool | None) -> None:
    lago = Directory(answer)
    discovery = SubscriptionDiscovery({}, {}, None, lago, now_us=lambda: NOW)  # type: ignore[arg-type]
    assert await discovery.is_unknown("org-typo") is is_unknown
    known = SubscriptionDiscovery({}, {"org-typo": OrgRecord("org-typo")}, None, lago, now_us=lambda: NOW)  # type: ignore[arg-type]
    assert await known.is_unknown("org-typo") is False


#: What is asked for, of which kind of id, minutes after the step before it, and for how many minutes ahead; None = now.
STEPS = st.tuples(
    st.sampled_from(["a", "b", "none", "end", "delete"]),
    st.sampled_from(["", "user", "team"]),
    st.integers(1, 40),
    st.none() | st.integers(1, 60),
)
MINUTE_US = 60 * SECOND_US


@given(st.lists(STEPS, min_size=2, max_size=7), st.lists(st.integers(-10, 120), min_size=1, max_size=8))
def test_calls_of_every_id_kind_keep_their_payer_after_any_announcement_and_withdrawal(
    steps: list[tuple[str, str, int, int | None]], moments: list[int]
) -> None:
    """A version for another id kind, an org without a subscription, a deletion: usage that a later version takes over
    belongs to it from then on. A version that has not started yet may be withdrawn, so it takes over nothing.
    """
    known = {name: OrgRecord(name, periods=(Period(name, 0),)) for name in "ab"}
    record, now = None, NOW
    for what, kind, minutes, ahead in steps:
        now += minutes * MINUTE_US
        at, before = None if ahead is None else now + ahead * MINUTE_US, record
        if what in ("end", "delete"):
            record = before and end_mapping(before, EndMappingRequest(what == "delete", at), now, LEAD)
        else:
            record = set_mapping(before, request_for(what, at, kind=kind), now, LEAD)
        if before is None or record is None:
            continue
        for at_us in (NOW + minute * MINUTE_US for minute in moments):
            for of_kind in ("user", "team", "end_user"):
                paid = resolve(before, at_us, of_kind, known, now_us=now)
                if at_us < now and not paid.held:
                    for later_us in (now, now + 90 * MINUTE_US):
                        assert resolve(record, at_us, of_kind, known, now_us=later_us) == paid


def test_a_version_that_has_not_started_takes_over_nothing() -> None:
    """
    now |--- for users, org a ---|--- for all, org b ...      a call of a team, before that
    """
    record = set_mapping(None, request_for("a", kind="user"), NOW, LEAD)
    record = later(record, request_for("b", NOW + 3 * HOUR_US))
    known = {name: OrgRecord(name, periods=(Period(name, 0),)) for name in "ab"}
    at_us, begins_us = NOW + 2 * HOUR_US, record.versions[-1].effective_from
    assert resolve(record, at_us, "team", known, now_us=begins_us - 1).held == WRONG_KIND
    assert resolve(record, at_us, "team", known, now_us=begins_us).subscription == "b"
    assert resolve(record, at_us, "user", known, now_us=begins_us).subscription == "a"
