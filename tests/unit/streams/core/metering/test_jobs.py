"""A job is billed once, however often it is read: its identity is its id, remembered in addition to those of calls."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.moments import HOUR_US, SECOND_US
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition

DAY = 24
BATCH = "batch_68f1c2d4"


def poll(
    number: int,
    *,
    cost: str = "0.5",
    hours: float = 0,
    job: str = BATCH,
    call_type: str = "aretrieve_batch",
    customer: str = "acme",
    source: str = "webhook",
    checked_at: int = 0,
    late_hours: float = 0,
    **fields: object,
) -> Raw:
    """Read `number` of a job, `hours` after noon; it arrives `late_hours` later."""
    at_us = NOON + round(hours * HOUR_US) + number * SECOND_US
    call = slp(number, at_us=at_us, cost=cost, **{"id": job, "call_type": call_type, **fields})
    received = at_us + round(late_hours * HOUR_US)
    record = raw(0, call, customer=customer, received_us=received, checked_at=checked_at)
    record.value = (record.value or b"").replace(b'"source": "webhook"', b'"source": "%b"' % source.encode())
    return record


def test_a_batch_that_is_read_fifty_times_is_billed_once() -> None:
    part = Partition().take(*[poll(n) for n in range(50)])
    assert (part.billed.calls, part.cost) == (1, Decimal("0.5"))
    assert part.decisions == {"billable": 1, "duplicate": 49}


@pytest.mark.parametrize(
    ("creation", "read"),
    [
        ("acreate_batch", "aretrieve_batch"),
        ("acreate_video", "avideo_status"),
        ("acreate_fine_tuning_job", "aretrieve_fine_tuning_job"),
        ("avideo_remix", "avideo_retrieve"),
    ],
)
@pytest.mark.parametrize("priced", ["creation", "read", "both"])
def test_creation_and_reads_are_one_job_and_any_of_them_may_have_the_cost(
    creation: str, read: str, priced: str
) -> None:
    first = poll(0, call_type=creation, cost="0.5" if priced != "read" else "0", total_tokens=0)
    reads = [poll(n, call_type=read, cost="0.5" if priced != "creation" else "0") for n in range(1, 10)]
    part = Partition().take(first, *reads, step=3)
    assert (part.billed.calls, part.cost) == (1, Decimal("0.5"))


def test_a_read_without_a_cost_does_not_settle_the_job() -> None:
    part = Partition().take(*[poll(n, cost="0") for n in range(5)], *[poll(n) for n in range(5, 10)])
    assert part.decisions == {"unpriced": 1, "billable": 1, "duplicate": 8}
    assert part.ledger.position.counters.unbilled.calls == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_is_remembered_while_it_is_reported_and_for_35_days_after(restarted: bool) -> None:
    """
    day 0: billed   days 20, 40, 60: read again   day 95: read again, 35 days later
    """
    part = Partition().take(poll(0))
    for day in (20, 40, 60, 95):
        if restarted:
            part.restart()
        part.take(poll(day, hours=day * DAY))
    assert part.billed.calls == 1
    assert part.decisions["duplicate"] == 4


def test_after_36_days_of_silence_a_job_is_forgotten_and_its_key_deleted() -> None:
    part = Partition().take(poll(0))
    assert [key for key in part.changelog if key[:1] == b"j"]
    part.idle(36 * DAY - 1)
    assert part.ledger.jobs
    part.idle(2)
    assert not part.ledger.jobs and not [key for key in part.changelog if key[:1] == b"j"]


def test_a_late_read_is_accepted_while_its_job_is_remembered() -> None:
    """Ten days beyond the dedupe retention of calls its job is still remembered: no manual release is needed."""
    part = Partition().take(poll(0), poll(1, job="batch_other", hours=240)).take(poll(2, hours=1, late_hours=240))
    assert part.decisions == {"billable": 2, "duplicate": 1}
    new = poll(3, job="batch_new", hours=2, late_hours=240)
    assert part.take(new).decisions["billable"] == 3


def test_a_read_older_than_the_memory_of_jobs_is_rejected() -> None:
    part = Partition().take(poll(0, hours=1, late_hours=35 * DAY))
    assert part.decisions == {"rejected:beyond_horizon": 1}
    assert Partition().take(poll(0, hours=1, late_hours=35 * DAY - 2)).decisions == {"billable": 1}


def test_one_job_read_by_two_customers_is_two_jobs() -> None:
    """The order of their arrival must not decide who pays; `reconcile` reports it."""
    part = Partition().take(poll(0), poll(1, customer="beta"))
    assert part.billed.calls == 2


@pytest.mark.parametrize("ending", ["", "_batch_cost"])
@pytest.mark.parametrize("backfill_first", [True, False])
def test_a_row_of_litellms_database_is_recognised_as_its_job(ending: str, backfill_first: bool) -> None:
    row = poll(7, job=BATCH + ending, source="backfill", checked_at=NOON, litellm_call_id="of-the-checker")
    records = [row, poll(1)] if backfill_first else [poll(1), row]
    part = Partition().take(*records)
    assert part.billed.calls == 1
    assert len(part.ledger.jobs) == 1 and len(part.ledger.seen) == 0


def test_a_row_of_a_background_response_is_recognised_as_its_reads() -> None:
    reads = [poll(n, job="resp_1", call_type="aget_responses") for n in range(20)]
    row = poll(30, job="resp_1_background_cost", call_type="aget_responses", source="backfill", checked_at=NOON)
    assert Partition().take(*reads, row, step=6).billed.calls == 1


def test_a_row_whose_call_was_no_job_is_recognised_as_its_call() -> None:
    """A streamed background response has its cost at its creation; the database marks its row all the same."""
    call = slp(1, id="resp_1", call_type="aresponses")
    row = raw(0, slp(1, id="resp_1_background_cost", call_type="aresponses"), checked_at=NOON)
    row.value = (row.value or b"").replace(b'"source": "webhook"', b'"source": "backfill"')
    assert Partition().take(raw(0, call), row).billed.calls == 1


def test_normal_responses_are_separate_calls_even_with_one_id() -> None:
    """LiteLLM may use ids of a provider that uses them twice."""
    part = Partition().take(*[raw(0, slp(n, id="resp_213", call_type="aresponses")) for n in range(3)], step=1)
    assert part.billed.calls == 3
    assert len(part.ledger.seen) == 4  # three calls, and the ids by which a read of them would be recognised


@pytest.mark.parametrize("restarted", [False, True])
def test_a_response_that_is_read_again_is_billed_only_by_its_creation(restarted: bool) -> None:
    """Versions before 1.108 report the full cost at every read of a response."""
    part = Partition().take(raw(0, slp(1, id="resp_1", call_type="aresponses", cost="0.5")))
    if restarted:
        part.restart()
    part.take(*[poll(n, job="resp_1", call_type="aget_responses", hours=1) for n in range(3)])
    assert part.billed.calls == 1 and part.decisions["duplicate"] == 3
    assert part.ledger.jobs  # from here on it is remembered for as long as a job


def test_a_background_response_whose_creation_had_no_cost_is_billed_by_a_read() -> None:
    created = slp(
        1, id="resp_1", call_type="aresponses", cost="0", total_tokens=0, prompt_tokens=0, completion_tokens=0
    )
    reads = [poll(n, job="resp_1", call_type="aget_responses") for n in range(20)]
    part = Partition().take(raw(0, created), *reads)
    assert part.decisions == {"zero_cost": 1, "billable": 1, "duplicate": 19}


def test_a_creation_reported_after_its_billed_read_is_a_duplicate() -> None:
    part = Partition().take(poll(1, job="resp_1", call_type="aget_responses"))
    part.take(raw(0, slp(1, id="resp_1", call_type="aresponses", cost="0.5")))
    assert part.billed.calls == 1


def test_a_failed_read_is_no_job() -> None:
    """Its id is its call id; as jobs such reads would fill the memory of jobs."""
    failed = [poll(n, status="failure", cost="0", job=f"call-{n}") for n in range(3)]
    part = Partition().take(*failed)
    assert part.decisions == {"failed_call": 3} and not part.ledger.jobs
    assert not Partition().take(poll(1, status="failure", cost="0")).ledger.jobs


def test_a_read_with_another_cost_is_reported() -> None:
    part = Partition().take(poll(0), poll(1, cost="0.6"), poll(2))
    assert part.decisions == {"billable": 1, "duplicate": 2}
    assert [one["reason"] for one in part.rejected] == ["cost_differs"]


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.booleans(), min_size=1, max_size=25),
    days=st.lists(st.integers(0, 30), min_size=25, max_size=25),
    step=st.integers(1, 7),
    restarts=st.booleans(),
)
def test_only_the_first_positive_cost_is_billed(costs: list[bool], days: list[int], step: int, restarts: bool) -> None:
    """Reads over up to 30 days, with and without the cost, in batches of any size, across restarts."""
    part, at = Partition(), 0
    for number, (priced, wait) in enumerate(zip(costs, days, strict=False)):
        at += wait * DAY
        part.take(poll(number, cost="0.5" if priced else "0", hours=at), step=step)
        if restarts and number % 3 == 0:
            part.restart()
    assert part.billed.calls == any(costs)
    assert part.ledger.position.counters.received.calls == len(costs)
