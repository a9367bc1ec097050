"""Which subscription pays exactly at a border, and if there are more than two of them."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from streams.core.mapping.billing_periods import billed, over, runs_at
from streams.core.mapping.held_reasons import ENDED, INACTIVE, NO_MAPPING, WRONG_KIND
from streams.core.mapping.subscription_choice import Choice, chosen
from streams.core.mapping.versions import uncovered

CHARGED = ("ai_usage",)


def period(external_id: str, started: int, ended: int | None = None) -> Period:
    return Period(external_id, started, ended, charged=CHARGED)


def org(*periods: Period) -> OrgRecord:
    return OrgRecord("org", periods=periods)


def test_after_the_end_of_three_the_last_one_is_named() -> None:
    three = org(period("a", 0, 10), period("b", 20, 30), period("c", 40, 50))
    assert chosen(three, 99, "ai_usage") == Choice("c")


def test_a_subscription_that_ended_at_its_start_pays_for_nothing() -> None:
    """Lago may have such a subscription, terminated in the second of its start."""
    assert chosen(org(period("never", 5, 5), period("next", 9)), 5, "ai_usage") == Choice("next")


def test_an_event_without_a_cost_goes_to_the_first_of_several_that_do_not_charge_it() -> None:
    both = org(period("a", 0), period("b", 0))
    assert chosen(both, 9, "api_calls", owed=False) == Choice("a")


def test_a_subscription_includes_its_start_and_excludes_its_end() -> None:
    one = period("a", 10, 20)
    assert [runs_at(one, at) for at in (9, 10, 19, 20)] == [False, True, True, False]
    assert [over(one, now) for now in (19, 20)] == [False, True]
    assert billed((one,), "a", 19, 9, "ai_usage").at_us == 19
    assert billed((one,), "a", 20, 9, "ai_usage").held == ENDED


def test_only_moved_usage_counts_as_invoiced() -> None:
    assert not billed((period("a", 10),), "a", 15, 15).invoiced
    assert not billed((period("a", 10),), "a", 5, 15).invoiced
    assert not billed((), "a", 5, 15).invoiced
    assert not billed((period("a", 10, 12),), "a", 11, 15).invoiced, "it is not billed at all"


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_of_consecutive_subscriptions_the_running_or_the_next_or_the_last_pays(
    lengths: list[tuple[int, int]], at_us: int
) -> None:
    """With pauses and lengths of any size, for a time before, in, between or after them."""
    begins, line = 0, list[Period]()
    for number, (pause, length) in enumerate(lengths):
        begins += pause
        line.append(period(f"sub_{number}", begins, begins + length))
        begins += length
    owed = next((one for one in line if one.terminated_at is not None and at_us < one.terminated_at), line[-1])
    assert chosen(org(*line), at_us, "ai_usage") == Choice(owed.external_id)


def version(at: int, *, active: bool = False, deleted: bool = False) -> MappingVersion:
    return MappingVersion(at, "org", "t", is_active=active, deleted=deleted)


def test_the_newest_version_decides_whether_the_customer_is_not_mapped() -> None:
    first, second, deleted = version(0), version(10), version(20, deleted=True)
    assert uncovered(CustomerRecord("c", (first, second, deleted), 0, 0), 25) == NO_MAPPING
    ended_again = (version(0, deleted=True), version(10, deleted=True), version(20))
    assert uncovered(CustomerRecord("c", ended_again, 0, 0), 25) == INACTIVE


def test_an_announced_mapping_gives_no_reason_before_it_starts() -> None:
    """Its reason `id_kind_not_mapped` made people look for an error in a mapping that was right."""
    for deleted, reason in ((False, INACTIVE), (True, NO_MAPPING)):
        announced = CustomerRecord("c", (version(0), version(10, deleted=deleted), version(20, active=True)), 0, 0)
        assert (uncovered(announced, 15, 19), uncovered(announced, 15, 20)) == (reason, WRONG_KIND)
