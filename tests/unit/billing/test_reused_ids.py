"""A subscription id that another customer has now: the org that had it before has lost it, even if its record does not
show that.
"""

from typing import Any, cast

import pytest

from connectors.billing.org_records import OrgRecords
from connectors.billing.reused_subscriptions import ended_by, orgs_left_behind
from schemas.customers import OrgRecord, Period
from schemas.policy import OutOfPeriodPolicy
from streams.core.mapping.held_reasons import ENDED
from streams.core.mapping.resolve import Resolver
from tests.support.calls import NOON

HOUR = 3_600_000_000
NOW = NOON + 9 * HOUR
Lives = list[tuple[str, int, int | None]]


def org(name: str, *lives: tuple[str, int, int | None], own: str = "") -> OrgRecord:
    return OrgRecord(name, periods=tuple(Period(*one) for one in lives), subscription_id=own)


@pytest.mark.parametrize(
    ("lives", "others", "ends"),
    [
        ([("s", 1, None)], [("s", 5, None)], [5]),
        ([("s", 1, 9)], [("s", 5, None)], [5]),
        ([("s", 1, 4)], [("s", 5, None)], [4]),
        ([("s", 1, None)], [("s", 5, 6), ("s", 8, None)], [5]),
        ([("s", 1, 4), ("s", 7, None)], [("s", 5, 6)], [4, None]),
        ([("s", 1, None)], [("t", 5, None)], [None]),
        ([("s", 5, None)], [("s", 1, None)], [None]),
        ([("s", 5, None)], [("s", 5, None)], [None]),
    ],
)
def test_a_period_ends_no_later_than_another_customers_period_with_the_same_id_begins(
    lives: Lives, others: Lives, ends: list[int | None]
) -> None:
    mine, other = org("a", *lives), org("b", *others)
    after = ended_by(mine, other)
    assert [one.terminated_at for one in after.periods] == ends
    assert (after is mine) == (orgs_left_behind(other, [mine]) == []) == (ends == [one[2] for one in lives])
    assert ended_by(after, other) is after
    assert ended_by(mine, org("a", *others)) is mine, "a change of plan says its own end"


class Topic:
    """`CompactedTopicWriter` in memory."""

    def __init__(self, *records: OrgRecord) -> None:
        self.table = {record.org_id: record for record in records}
        self.written: list[str] = []

    async def change(self, key: str, make: Any) -> OrgRecord | None:
        before = self.table.get(key)
        after: OrgRecord | None = make(before)
        if after is not None and after != before:
            self.written.append(key)
            self.table[key] = after
        return after


def records(topic: Topic) -> OrgRecords:
    created = OrgRecords(cast(Any, topic), {}, "orgs", now_us=lambda: NOW)
    created._records = cast(Any, topic)
    return created


async def test_a_reused_id_ends_the_earlier_customers_period_and_its_usage_goes_elsewhere() -> None:
    """The end itself was reported neither by a webhook nor by a poll."""
    topic = Topic(org("a", ("s", NOON - HOUR, None), ("later", NOON + 2 * HOUR, None)), org("z", ("t", 0, None)))
    began = Period("s", NOON + HOUR)
    created = await records(topic).change("b", lambda one: OrgRecord(one.org_id, periods=(began,)))
    assert topic.written == ["b", "a"]
    assert (created.periods, topic.table["a"].periods[0].terminated_at) == ((began,), NOON + HOUR)
    assert topic.table["a"].updated_at == NOW
    resolver = Resolver({}, topic.table, OutOfPeriodPolicy.SHIFT)
    resolver.now_us = NOW
    assert resolver("a", NOON + 3 * HOUR, "org").subscription == "later"


async def test_a_record_that_does_not_have_the_end_yet_is_not_written_without_it_again() -> None:
    """Lago was asked before the end, or was not asked about the org since."""
    topic = Topic(org("b", ("s", NOON, None)))
    created = await records(topic).change("a", lambda one: OrgRecord(one.org_id, periods=(Period("s", NOON - HOUR),)))
    assert created.periods[0].terminated_at == NOON
    assert topic.written == ["a"]


async def test_without_another_subscription_later_usage_is_held_and_not_billed_to_the_other_customer() -> None:
    topic = Topic(org("a", ("s", NOON - HOUR, None)))
    await records(topic).change("b", lambda one: OrgRecord(one.org_id, periods=(Period("s", NOON + HOUR),)))
    resolver = Resolver({}, topic.table, OutOfPeriodPolicy.SHIFT)
    resolver.now_us = NOW
    assert resolver("a", NOON + 3 * HOUR, "org").held == ENDED
    assert resolver("b", NOON + 3 * HOUR, "org").subscription == "s"
