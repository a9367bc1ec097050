"""One request under two ids, one job of two customers, copies with another cost: stored, counted and reported."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.operations.money_notes import notes_of, unbilled_json, unbilled_text
from connectors.postgres.pool import Database
from schemas.records import Rejection
from tests.support.database import rows
from tests.support.history import TOPICS
from tests.support.projection import Writer, usage


async def complaints(url: str) -> list[str]:
    database = Database(url, size=1)
    try:
        return (await notes_of(database)).complaints
    finally:
        database.terminate()


def bridged(number: int, request_id: str, **fields: Any) -> Any:
    return usage(number, call_id="call", request_id=request_id, total_tokens=22, status="success", **fields)


async def test_one_request_that_litellm_logged_under_two_ids_is_reported_with_both(url: str) -> None:
    """Before LiteLLM's PR 11687, for /responses answered by chat completion."""
    async with Writer(url) as writer:
        result = await writer.put(TOPICS.enriched, bridged(1, "resp_1"), usage(7))
        assert result is not None and result.doubled == {}
        result = await writer.put(TOPICS.enriched, bridged(2, "chatcmpl-1"))
        assert result is not None and result.doubled == {"bridge": 1}
    (one,) = await complaints(url)
    assert "resp_1 and chatcmpl-1 of acme" in one and "0.000145 USD each" in one


async def test_both_in_one_batch_and_read_again_are_one_pair(url: str) -> None:
    async with Writer(url) as writer:
        result = await writer.put(TOPICS.enriched, bridged(1, "resp_1"), bridged(2, "chatcmpl-1"))
        assert result is not None and result.doubled == {"bridge": 1}
        result = await writer.put(TOPICS.enriched, bridged(1, "resp_1"), bridged(2, "chatcmpl-1"))
        assert result is not None and result.doubled == {}


@pytest.mark.parametrize(
    "other",
    [
        {"cost_usd": Decimal(1)},
        {"total_tokens": 23},
        {"end": "2026-11-20T12:00:01.500001Z"},
        {"start": "2026-11-20T12:00:00.000001Z"},
        {"call_id": "another"},
        {"status": "failure"},
        {"part": "", "decision": "unpriced"},
    ],
)
async def test_two_calls_that_differ_are_two_calls(url: str, other: dict[str, Any]) -> None:
    second = {"call_id": "call", "request_id": "chatcmpl-1", "total_tokens": 22, "status": "success", **other}
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, bridged(1, "resp_1"), usage(2, **second))
    assert await complaints(url) == []


async def test_a_copy_that_another_ledger_counted_is_reported_with_both_customers(url: str) -> None:
    """The log has one row for each call, so earlier the second was ignored as a repeat without a report."""
    again = usage(1, request_id="r-1", customer_id="team-7", part="d-t-1-3")
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, request_id="r-1"))
        for found in ({"copy": 1}, {}):
            result = await writer.put(TOPICS.enriched, again, usage(2))
            assert result is not None and result.doubled == found
    (one,) = await complaints(url)
    assert "r-1" in one and "for acme and for team-7, 0.000145 USD" in one


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),  # the same record, read again
        ({"decision": "unpriced", "part": ""}, {"part": "d-t-1-3"}),  # counted without a price, then billed
        ({}, {"decision": "duplicate", "part": ""}),
    ],
)
async def test_a_call_that_is_billed_once_is_no_copy(url: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, **first))
        result = await writer.put(TOPICS.enriched, usage(1, **second))
        assert result is not None and result.doubled == {}
    assert await complaints(url) == []


async def test_one_job_that_two_customers_read_is_reported_with_both(url: str) -> None:
    poll = {"request_id": "batch_1", "call_type": "aretrieve_batch"}
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, call_id="p1", **poll))
        result = await writer.put(
            TOPICS.enriched,
            usage(2, call_id="p2", customer_id="zenith", **{**poll, "request_id": "batch_1_batch_cost"}),
        )
        assert result is not None and result.doubled == {"job": 1}
    (one,) = await complaints(url)
    assert "batch_1" in one and "acme" in one and "zenith" in one


async def test_one_job_that_was_read_again_after_it_was_forgotten_is_reported(url: str) -> None:
    """A ledger remembers a job for 35 days after its last report; earlier nothing named the second bill."""
    poll = {"request_id": "batch_1", "call_type": "aretrieve_batch"}
    later = {"start": "2027-01-05T12:00:00.000000Z", "end": "2027-01-05T12:00:01.000000Z", "part": "d-t-0-90"}
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, call_id="p1", **poll))
        for found in ({"job": 1}, {}):
            result = await writer.put(TOPICS.enriched, usage(1, call_id="p2", **poll, **later))
            assert result is not None and result.doubled == found
    (one,) = await complaints(url)
    assert "one job, batch_1, is billed to acme twice, 0.000145 USD each" in one and "35 days" in one


async def test_both_costs_of_a_job_that_is_billed_twice_are_named(url: str) -> None:
    """A rebuilt ledger with gaps forgets a job, too; the provider may have charged more by the second report."""
    poll = {"request_id": "batch_1", "call_type": "aretrieve_batch"}
    later = {"start": "2026-12-02T12:00:00.000000Z", "end": "2026-12-02T12:00:01.000000Z", "part": "d-t-0-90"}
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, call_id="p1", cost_usd=Decimal("0.02"), **poll))
        await writer.put(TOPICS.enriched, usage(1, call_id="p2", cost_usd=Decimal("0.005"), **poll, **later))
    (one,) = await complaints(url)
    assert "is billed to acme twice, 0.005 and 0.02 USD: " in one and "or its ledger was begun again" in one


async def test_a_job_that_had_no_cost_at_first_is_billed_once(url: str) -> None:
    poll = {"request_id": "batch_1", "call_type": "aretrieve_batch"}
    later = {"start": "2027-01-05T12:00:00.000000Z", "end": "2027-01-05T12:00:01.000000Z"}
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, call_id="p1", decision="zero_cost", part="", **poll))
        result = await writer.put(TOPICS.enriched, usage(1, call_id="p2", **poll, **later))
        assert result is not None and result.doubled == {}


async def test_a_copy_with_another_cost_is_reported_until_it_is_dismissed(url: str) -> None:
    async with Writer(url) as writer:
        refusal = Rejection("cost_differs", "meter", 1_795_176_000_000_000, "billed 2, this copy 3", 5)
        await writer.put(TOPICS.rejected, refusal)
        (one,) = await complaints(url)
        assert "1 copy of a billed call came with another cost" in one and "billed 2, this copy 3" in one
        await rows(url, "UPDATE rejected_calls SET resolution = 'purged'")
    assert await complaints(url) == []


@pytest.mark.parametrize(
    ("closed", "how", "left"), [(0, "purged", 0), (0, "known", 0), (0, "requeued", 1), (1, "purged", 1)]
)
async def test_a_later_copy_of_a_closed_dead_letter_is_not_open(url: str, closed: int, how: str, left: int) -> None:
    """A replay makes such copies. `dlq list` does not show them, and reconcile complained about them."""
    call = msgspec.Raw(b'{"id": "1", "response_cost": 3}')
    refusal = Rejection("cost_differs", "meter", 1_795_176_000_000_000, "this copy 3", 5, call)
    mark = {"resolves": str(closed).encode(), "how": how.encode(), "audit_id": b"a"}
    async with Writer(url) as writer:
        await writer.put(TOPICS.rejected, refusal, refusal)
        await writer.put(TOPICS.rejected, b"", **mark)
    with Database(url, size=1) as database:
        notes = await notes_of(database)
    assert [(reason, calls) for reason, calls, _ in notes.refused] == [("cost_differs", 1)] * left
    assert len(notes.complaints) == left


async def test_unbilled_usage_is_reported_by_decision_and_unpriced_usage_by_model(url: str) -> None:
    free = {"part": "", "total_tokens": 10}
    async with Writer(url) as writer:
        await writer.put(
            TOPICS.enriched,
            usage(1),
            *(usage(n, decision="unpriced", model="new", cost_usd=Decimal(0), **free) for n in (2, 3)),
            usage(4, decision="byok", cost_usd=Decimal(5), **free),
            usage(5, decision="carried", cost_usd=Decimal(7), status="failure", **free),
        )
    database = Database(url, size=1)
    try:
        notes = await notes_of(database)
    finally:
        database.terminate()
    assert unbilled_json(notes)["unbilled"] == {
        "byok": {"calls": 1, "usd": "5", "tokens": 10},
        "unpriced": {"calls": 2, "usd": "0", "tokens": 20, "models": {"new": 2}},
    }
    assert unbilled_text(notes) == [
        "not billed, byok: 1 call, 5 USD, 10 tokens",
        "failed attempts that are billed with the call after them: 1 call, 7 USD, 10 tokens",
        "not billed, unpriced: 2 calls, 0 USD, 20 tokens: new (2)",
    ]
