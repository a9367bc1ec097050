"""How many identities one step forgets, and how often a job is written to the changelog again."""

from dataclasses import replace
from decimal import Decimal

import pytest

from schemas.ledger import Job, Position
from schemas.moments import HOUR_US
from schemas.normalised_call import Twins, Usage
from schemas.policy import MeterPolicy
from streams.core.metering.batch_identities import HOUR_MS, BatchIdentities, tag_of
from streams.core.metering.decisions import BILLABLE, BYOK, CACHE_HIT, OWN_SUBSCRIPTION, PRICEABLE, SILENT_EXPERIMENT
from streams.core.metering.known_identities import COSTLESS, SETTLED, UNTOLD
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from tests.support.calls import NOON, raw, slp
from tests.support.folding import Partition

HOUR = NOON // HOUR_US
HORIZON_US = 24 * HOUR_US
BATCH = "bGl0ZWxsbV9wcm94eTtiYXRjaF8x"


def written(ledger: LedgerState) -> Changes:
    changes = Changes(ledger.position)
    BatchIdentities(ledger, []).write(changes, 0, HORIZON_US, HOUR)
    return changes


def ledger_at(hour: int) -> LedgerState:
    return LedgerState(Position(clock_ms=hour * HOUR_MS))


@pytest.mark.parametrize("first", [1, 500, 900])
def test_a_step_deletes_at_most_500_chunks_of_each_hour_and_starts_no_other_hour_beyond_them(first: int) -> None:
    """The deletions are part of a transaction: a partition that was idle for a year must not make a huge one."""
    ledger = ledger_at(HOUR)
    ledger.seen_blocks = {HOUR - 30: dict.fromkeys(range(first), b"n"), HOUR - 29: {0: b"n"}, HOUR - 24: {0: b"n"}}
    dropped = written(ledger).dropped
    assert len(dropped) == (2 if first == 1 else 500)
    assert {hour for hour, _, _ in dropped} == ({HOUR - 30, HOUR - 29} if first == 1 else {HOUR - 30})


def test_a_step_deletes_at_most_500_jobs_and_none_that_must_be_remembered() -> None:
    """35 days, plus the day after which a job that is reported again is written again."""
    ledger, kept = ledger_at(HOUR), HOUR - 36 * 24
    for number in range(700):
        ledger.put_job(b"old-%d" % number, Job(kept - 1, SETTLED))
    assert len(written(ledger).jobs) == 500
    ledger = ledger_at(HOUR)
    ledger.put_job(b"old", Job(kept - 1, SETTLED))
    ledger.put_job(b"still", Job(kept, SETTLED))
    assert written(ledger).jobs == {b"old": None}


def test_hours_are_remembered_from_the_dedupe_retention_on_and_never_fewer_than_before() -> None:
    ledger = ledger_at(HOUR)
    assert written(ledger).position.dropped_hour == HOUR - 24
    ledger.position.dropped_hour = HOUR - 3
    assert written(ledger).position.dropped_hour == HOUR - 3


def test_a_job_that_is_polled_is_written_again_once_a_day() -> None:
    def poll(hours: float) -> set[bytes]:
        at_us = NOON + round(hours * HOUR_US)
        part.take(raw(0, slp(1, at_us=at_us, id=BATCH, call_type="aretrieve_batch"), received_us=at_us))
        return set(part.steps[-1].jobs)

    part = Partition()
    (job,) = poll(0)
    assert poll(23.99) == set()
    assert poll(24) == {job}
    assert poll(47.99) == set()
    assert poll(48) == {job}


def test_after_a_restart_the_hour_of_a_jobs_last_write_is_known() -> None:
    part = Partition().take(raw(0, slp(1, id=BATCH, call_type="aretrieve_batch")))
    (job,) = part.restart().ledger.jobs.values()
    assert job.hour == HOUR


def test_if_a_call_is_known_by_several_ids_the_strongest_state_counts() -> None:
    """Settled with a known cost outweighs settled with an unknown one, which outweighs counted without a cost; each
    outweighs unknown.
    """
    ledger = LedgerState(Position())
    usage = usage_with_a_twin()
    for tags, strongest in {
        (COSTLESS, UNTOLD): UNTOLD,
        (COSTLESS, SETTLED): SETTLED,
        (UNTOLD, SETTLED): SETTLED,
        (COSTLESS, COSTLESS): COSTLESS,
        (-1, COSTLESS): COSTLESS,
        (-1, UNTOLD): UNTOLD,
        (-1, -1): -1,
    }.items():
        for own, twin in (tags, tags[::-1]):
            memory = BatchIdentities(ledger, [usage])
            if twin != -1:
                memory.new[b"t" * 16] = twin
            assert memory.also(usage, own) == strongest, (own, twin)


def usage_with_a_twin() -> Usage:
    usage = Usage(b"i" * 16, "", "", "success", NOON, NOON, "", "", 0, 0, 0, 0, 0, Decimal(0))
    usage.twins = Twins((b"t" * 16,), (b"t" * 16,))
    return usage


def test_a_call_billed_without_a_cost_is_settled() -> None:
    """For example a cache hit billed at 0, or a metered event."""
    free = usage_with_a_twin()
    assert tag_of(free, BILLABLE) == SETTLED
    assert {tag_of(free, decision) for decision in PRICEABLE} == {COSTLESS}
    assert {tag_of(free, decision) for decision in (CACHE_HIT, BYOK, OWN_SUBSCRIPTION, SILENT_EXPERIMENT)} == {UNTOLD}
    free.job = free.identity
    assert tag_of(free, BYOK) == COSTLESS
    free.cost = Decimal("0.02")
    assert tag_of(free, BYOK) > SETTLED


def test_reads_of_a_job_without_a_cost_are_one_call_and_another_call_beside_them_is_its_own() -> None:
    """A response that may be read again is known by a read only if that read was billed."""
    read = {"id": "resp_1", "call_type": "aget_responses", "cost": "0"}
    part = Partition().take(raw(0, slp(1, **read)), raw(0, slp(2, **read)), step=1)
    assert part.decisions == {"unpriced": 1, "duplicate": 1}
    part.take(raw(0, slp(3, id="resp_1", call_type="aresponses", cost="0")))
    assert part.decisions == {"unpriced": 2, "duplicate": 1}


def test_an_answer_that_was_billed_at_zero_is_billed_by_no_read() -> None:
    """A cache hit under the policy to bill: it costs nothing, but LiteLLM reports the full cost of the cached answer at
    each read.
    """
    part = Partition(replace(MeterPolicy(), bill_cache_hits=True))
    part.take(raw(0, slp(1, id="resp_1", call_type="aresponses", cost="0", cache_hit=True)))
    assert part.decisions == {"billable": 1}
    part.take(raw(0, slp(2, id="resp_1", call_type="aget_responses", cost="0.5")))
    assert part.decisions == {"billable": 1, "duplicate": 1}


def test_a_read_billed_at_zero_makes_the_call_that_created_the_answer_a_duplicate() -> None:
    part = Partition(replace(MeterPolicy(), bill_cache_hits=True))
    part.take(raw(0, slp(1, id="resp_1", call_type="aget_responses", cost="0", cache_hit=True)))
    part.take(raw(0, slp(2, id="resp_1", call_type="aresponses", cost="0.5")))
    assert part.decisions == {"billable": 1, "duplicate": 1}


def test_a_call_that_settles_a_job_read_without_a_cost_settles_it_for_as_long_as_jobs_are_remembered() -> None:
    part = Partition().take(raw(0, slp(1, id="resp_1", call_type="aget_responses", cost="0")))
    later = NOON + 3 * HOUR_US
    part.take(raw(0, slp(2, id="resp_1", call_type="aresponses", cost="0.5", at_us=later), received_us=later))
    (job,) = part.ledger.jobs.values()
    assert (job.hour, job.tag > SETTLED) == (HOUR + 3, True)
    late = NOON + 30 * 24 * HOUR_US
    part.take(raw(0, slp(3, id="resp_1", call_type="aget_responses", cost="0.5", at_us=late), received_us=late))
    assert part.decisions == {"unpriced": 1, "billable": 1, "duplicate": 1}


def test_a_call_known_by_another_route_is_settled_and_not_reported_twice() -> None:
    """A row of LiteLLM's database one millisecond away: five milliseconds times three statuses are kept, one of them
    the webhook's, and its two ids, for a copy without a time.
    """
    row = raw(0, slp(1, at_us=NOON + 1000, cost="0.02"), checked_at=NOON)
    row.value = (row.value or b"").replace(b'"source": "webhook"', b'"source": "backfill"')
    part = Partition().take(raw(0, slp(1, cost="0"))).take(row)
    assert part.decisions == {"unpriced": 1, "billable": 1}
    assert len(part.ledger.seen) == 16
    assert len(part.restart().ledger.seen) == 16
