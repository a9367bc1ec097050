"""MAPPING_DELAY_SECONDS changes, process by process: the last request wins, and no worker folds too early."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.config.settings import load_settings
from connectors.processes.worker_parts import FRESH_S, fresh_s
from schemas.customers import CustomerRecord, OrgRecord, Period
from schemas.errors import Rejected
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.resolve import Resolver
from streams.core.mapping.set_mapping import (
    MIN_MAPPING_DELAY_S,
    EndMappingRequest,
    MappingRequest,
    earliest_effective,
    end_mapping,
    in_force,
    set_mapping,
)

NOW = 1_800_000_000 * SECOND_US
FAR = NOW + 10_000 * HOUR_US
LEADS_S = [MIN_MAPPING_DELAY_S, 5, 60, 3600]
ORGS = {name: OrgRecord(name, periods=(Period(f"sub-{name}", 0),)) for name in "abcdefgh"}


def request_for(org: str, **fields: Any) -> MappingRequest:
    return MappingRequest("c", org, "t", **fields)


def us(seconds: float) -> int:
    return round(seconds * SECOND_US)


def test_a_request_after_the_delay_was_shortened_is_not_overridden_by_an_earlier_one() -> None:
    """
    lead 60 s | b asked, begins at 60
    lead 1 s           | c asked at 10: in place of b, from 60 on; at 11 b would have won again at 60
    """
    first = set_mapping(None, request_for("a"), NOW - HOUR_US, us(60))
    second = set_mapping(first, request_for("b"), NOW, us(60))
    third = set_mapping(second, request_for("c"), NOW + us(10), us(1))
    assert [in_force(third.versions, NOW + us(at)).lago_customer_id for at in (59, 60, 99)] == ["a", "c", "c"]
    assert in_force(third.versions, FAR).lago_customer_id == "c"
    assert set_mapping(third, request_for("c"), NOW + us(20), us(1)) is third


def test_an_end_does_not_wait_for_a_version_that_a_longer_delay_postponed() -> None:
    record = set_mapping(set_mapping(None, request_for("a"), NOW - HOUR_US, us(60)), request_for("b"), NOW, us(3600))
    ended = end_mapping(record, EndMappingRequest(), NOW + us(10), us(1))
    assert not in_force(ended.versions, NOW + us(11)).is_active
    assert not in_force(ended.versions, FAR).is_active


def test_a_version_announced_for_a_time_keeps_it_under_any_delay() -> None:
    record = set_mapping(None, request_for("a"), NOW - HOUR_US, us(60))
    record = set_mapping(record, request_for("b", effective_from=NOW + HOUR_US), NOW, us(60))
    record = set_mapping(record, request_for("c"), NOW, us(1))
    assert earliest_effective(record, NOW, us(1)) == NOW + us(1)
    moments = (NOW + us(1), NOW + HOUR_US - 1, NOW + HOUR_US)
    assert [in_force(record.versions, at).lago_customer_id for at in moments] == ["c", "c", "b"]


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from(LEADS_S), st.sampled_from("abcdefgh")), min_size=1))
def test_under_any_delays_the_last_request_wins(steps: list[tuple[int, float, str]]) -> None:
    record: CustomerRecord | None = None
    now_us = NOW
    for later_s, mapping_delay_s, org in steps:
        now_us += us(later_s)
        before = record
        record = set_mapping(before, request_for(org, correct=False), now_us, us(mapping_delay_s))
        assert in_force(record.versions, FAR).lago_customer_id == org
        if before is not None:  # nothing that may have been decided is moved
            decided = now_us + us(mapping_delay_s) - 1
            assert (
                in_force(record.versions, decided).lago_customer_id
                == in_force(before.versions, decided).lago_customer_id
            )


@pytest.mark.parametrize("worker_s", [0, 0.5, 1, 5, 60, 3600])
@pytest.mark.parametrize("api_s", [5, 60, 3600])
@given(st.lists(st.tuples(st.integers(0, 30_000_000), st.sampled_from("abcdefgh")), min_size=1, max_size=6))
def test_from_five_seconds_on_api_and_workers_may_have_different_delays_in_any_order(
    api_s: float, worker_s: float, changes: list[tuple[int, str]]
) -> None:
    """A worker's table is as old as allowed, and the call has just ended: it goes where the api says."""
    age_us = us(fresh_s(load_settings({"MAPPING_DELAY_SECONDS": str(worker_s)})))
    records: list[tuple[int, CustomerRecord]] = [
        (NOW - HOUR_US, set_mapping(None, request_for("a"), NOW - HOUR_US, us(api_s)))
    ]
    at_us = NOW
    for later_us, org in changes:
        at_us += later_us
        try:
            records.append((at_us, set_mapping(records[-1][1], request_for(org, correct=False), at_us, us(api_s))))
        except Rejected:
            continue
    final = {"c": records[-1][1]}
    for now_us in {version.effective_from + late for version in final["c"].versions for late in (0, us(0.3), us(4.9))}:
        stale = {
            "c": [record for written_us, record in records if written_us <= max(now_us - age_us, NOW - HOUR_US)][-1]
        }
        seen = Resolver(stale, ORGS)("c", now_us, "")
        assert (seen.org_id, seen.subscription) == (
            (right := Resolver(final, ORGS)("c", now_us, "")).org_id,
            right.subscription,
        )


def test_no_worker_needs_a_table_younger_than_a_second_or_accepts_one_older_than_five() -> None:
    for mapping_delay_s, wanted in ((0, 1), (0.2, 1), (1, 1), (3, 3), (5, 5), (6, FRESH_S), (3600, 5)):
        assert fresh_s(load_settings({"MAPPING_DELAY_SECONDS": str(mapping_delay_s)})) == wanted
