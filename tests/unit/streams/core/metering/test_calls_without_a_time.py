"""A call is billed once although its sender gives no time, or no status, and LiteLLM's database gives both (ADR 0067)."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import HOUR_US, SECOND_US
from tests.support.calls import NOON, Raw, raw
from tests.support.folding import Partition

IDS: list[dict[str, Any]] = [{"litellm_call_id": "c", "id": "r"}, {"litellm_call_id": "c"}, {"id": "r"}]
SHAPES = ["slp", "flat", "integration"]
MS = 1000


def posted(number: int = 1, *, at_us: int = NOON, shape: str = "flat", cost: str = "2", **fields: Any) -> Raw:
    ids = {"litellm_call_id": f"call-{number}", "id": f"req-{number}"}
    return raw(0, {**ids, "response_cost": Decimal(cost), **fields}, received_us=at_us, shape=shape)


def from_database(number: int = 1, *, start_us: int, at_us: int = NOON, **fields: Any) -> Raw:
    """Return a call that `backfill` sends; it may also come from a file of the sender, with a single time."""
    times = {"startTime": start_us / SECOND_US, "endTime": (start_us + SECOND_US) / SECOND_US, "status": "success"}
    if fields.get("shape") == "integration":
        times = {"timestamp": start_us / SECOND_US}
    record = posted(number, at_us=at_us, **{**times, **fields})
    assert record.value is not None
    return replace(record, value=record.value.replace(b'"source": "webhook"', b'"source": "backfill"'))


@given(
    ids=st.sampled_from(IDS),
    shape=st.sampled_from(SHAPES),
    shape_of_row=st.sampled_from(SHAPES),
    status=st.sampled_from([{}, {"status": ""}, {"status": "success"}, {"status": "failure"}]),
    time=st.sampled_from([{}, {"startTime": ""}, {"endTime": NOON / SECOND_US}]),
    order=st.permutations(["post", "post", "backfill", "backfill"]),
    step=st.sampled_from([1, 1000]),
    restarts=st.booleans(),
)
def test_a_call_without_a_time_and_its_row_of_the_database_are_one(
    ids: dict[str, Any],
    shape: str,
    shape_of_row: str,
    status: dict[str, Any],
    time: dict[str, Any],
    order: list[str],
    step: int,
    restarts: bool,
) -> None:
    """Each copy may be the first that is counted; the others repeat it, before and after a restart."""
    part = Partition()
    only: dict[str, Any] = {"litellm_call_id": None, "id": None, **ids}
    for number, copy in enumerate(order):
        at_us = NOON + number * HOUR_US
        if copy == "post":
            part.take(posted(at_us=at_us, shape=shape, **only, **status, **time), step=step)
        else:
            part.take(from_database(start_us=NOON - 5 * SECOND_US, at_us=at_us, shape=shape_of_row, **only), step=step)
        if restarts:
            part.restart()
    assert part.cost == 2 and part.billed.calls == 1


@given(
    start_us=st.integers(NOON - HOUR_US, NOON - SECOND_US),
    rounded_ms=st.integers(-2, 2),
    status=st.sampled_from([{}, {"status": "success"}, {"status": "failure"}]),
    database_first=st.booleans(),
)
def test_a_call_without_a_status_and_its_row_of_the_database_are_one(
    start_us: int, rounded_ms: int, status: dict[str, Any], database_first: bool
) -> None:
    start_us -= start_us % MS
    sent = posted(startTime=start_us / SECOND_US, endTime=NOON / SECOND_US, **status)
    row = from_database(start_us=start_us + rounded_ms * MS)
    part = Partition().take(*((row, sent, row, sent) if database_first else (sent, row, sent, row)))
    assert part.cost == 2 and part.billed.calls == 1


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("repeats", [0, 1])
def test_two_rows_with_the_same_ids_and_different_starts_stay_two_calls(ids: dict[str, Any], repeats: int) -> None:
    """Providers repeat ids, and clients choose call ids. What is remembered for a copy without a time joins no rows."""
    only: dict[str, Any] = {"litellm_call_id": None, "id": None, **ids}
    part = Partition()
    for start_us in (NOON - 60 * SECOND_US, NOON - 30 * SECOND_US):
        part.take(from_database(start_us=start_us, **only), *[posted(**only)] * repeats)
    assert part.cost == 4


@pytest.mark.parametrize("different", [{"litellm_call_id": "other"}, {"id": "other"}, {"litellm_call_id": None}])
@pytest.mark.parametrize("database_first", [True, False])
def test_a_call_without_a_time_and_with_other_ids_is_another(different: dict[str, Any], database_first: bool) -> None:
    """A failed attempt and the success after it share a call id, and a provider may repeat its own."""
    records = [from_database(start_us=NOON - SECOND_US), posted(**different)]
    assert Partition().take(*(records if database_first else records[::-1])).cost == 4


def test_calls_without_a_time_that_differ_in_their_status_stay_two() -> None:
    assert Partition().take(posted(status="success"), posted(status="failure")).cost == 4


def test_a_row_without_a_price_does_not_open_what_another_row_with_the_same_ids_has_settled() -> None:
    part = Partition().take(
        from_database(start_us=NOON - 60 * SECOND_US),
        from_database(start_us=NOON - 30 * SECOND_US, response_cost=Decimal(0), total_tokens=5),
    )
    assert part.restart().take(posted()).cost == 2


def test_a_price_that_comes_with_the_row_bills_a_call_without_a_time_once() -> None:
    part = Partition().take(posted(cost="0", total_tokens=5), from_database(start_us=NOON - SECOND_US))
    assert part.restart().take(posted(), posted(cost="0", total_tokens=5)).cost == 2
    assert part.decisions == {"unpriced": 1, "billable": 1, "duplicate": 2}
