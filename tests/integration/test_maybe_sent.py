"""Whether Lago may have the event of a dead letter is one fact, and every command says the same of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from connectors.operations.recovered_records import dead_letters_of
from connectors.postgres.migrate import migrate, migrations
from connectors.postgres.recover import stored_state
from streams.core.delivery.dead_letter_headers import maybe_sent_of
from streams.core.delivery.maybe_sent import lago_may_have
from tests.support.billed_day import BilledDay, calls, lago_of_org_a
from tests.support.command import meterbridge
from tests.support.database import fresh_database, projector_parts, rows, until
from tests.support.history import TOPICS
from tests.support.http_client import http_client
from tests.support.posting import quick_delivery
from tests.support.projection import Writer, event, manifest, receipt
from tests.support.sandbox import Lago
from tests.support.stage import Stage

FACT = "SELECT maybe_sent FROM lago_events"
#: What the projector executed before it stored the fact, with a dead letter.
EARLIER_RELEASE = """
INSERT INTO usage_parts AS p (part, status, attempts, reason, processed_at) VALUES ($1, 'failed', 4, 'http_409', now())
ON CONFLICT (part) DO UPDATE SET
    status = EXCLUDED.status, attempts = EXCLUDED.attempts, reason = EXCLUDED.reason, processed_at = EXCLUDED.processed_at
"""
#: Lago stores the event and does not answer; then something before Lago refuses each post of it.
STORED: list[dict[str, Any]] = [{"kind": "drop_after_accept", "count": 1}, {"kind": "status", "status": 409}]
_REFUSAL = {
    "status": 422,
    "error": "Unprocessable Entity",
    "code": "validation_errors",
    "error_details": {"0": {"x": ["y"]}},
}
REFUSED: list[dict[str, Any]] = [{"kind": "status", "status": 422, "body": _REFUSAL}]


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_of_org_a() as sandbox:
        yield sandbox


@pytest.fixture
def day(stage: Stage, database: str, lago: Lago) -> BilledDay:
    return BilledDay(stage, database, lago)


@asynccontextmanager
async def posting(day: BilledDay) -> AsyncIterator[None]:
    """Run the roles that post and the projector."""
    async with http_client(trust_env=False) as http, projector_parts(day.stage, day.database) as project:
        delivery = quick_delivery(day.lago, http)
        parts = replace(project, delivery=lambda: delivery, retry_delay_s=0.05, max_retries=1)
        async with (
            day.stage.running("sink", parts),
            day.stage.running("retry", parts),
            day.stage.running("project", parts),
        ):
            yield


async def fail(day: BilledDay, faults: list[dict[str, Any]]) -> str:
    """Bill three calls by an event that becomes a dead letter; return its id."""
    for fault in faults:
        await day.lago.fault(**fault)
    day.stage.map("acme", "org-a", "sub-a")
    day.stage.put(calls(range(3), "acme", cost="0.013"))
    async with posting(day), day.stage.running("meter", day.stage.parts()):
        await until(
            day.database, "SELECT count(*) FROM lago_events WHERE status = 'failed'", lambda count: count == 1, 30
        )
    [(transaction_id,)] = await rows(day.database, "SELECT transaction_id FROM lago_events")
    return str(transaction_id)


@pytest.mark.parametrize(
    ("faults", "reason", "may_have"),
    [(STORED, "http_409", True), (REFUSED, "lago_refused", False)],
    ids=["stored", "refused"],
)
async def test_every_command_says_the_same_of_a_dead_letter_that_lago_may_have(
    day: BilledDay, faults: list[dict[str, Any]], reason: str, may_have: bool
) -> None:
    transaction_id = await fail(day, faults)
    await day.lago.http.delete("/__faults")
    (dead_letter,) = day.stage.read(day.stage.topics.dlq)
    assert (dict(dead_letter.headers())["reason"], maybe_sent_of(dead_letter.headers())) == (reason.encode(), may_have)
    (failed,) = [one for one in day.stage.values(day.stage.topics.receipts) if one["status"] == "failed"]
    assert (failed["reason"], failed["maybe_sent"]) == (reason, may_have)
    assert await rows(day.database, FACT) == [(may_have,)]
    assert (await day.lago.stats())["totals"]["calls"] == (3 if may_have else 0)

    shown = (await day.run("dlq", "show", "events/0/0")).json
    explained = (await day.run("explain", transaction_id)).json
    assert (shown["may_be_in_lago"], explained["may_be_in_lago"]) == (may_have, may_have)
    said = (await meterbridge(day.stage, "explain", transaction_id, DATABASE_URL=day.database)).out
    assert ("Lago may have the event" in said, "Lago does not bill the event" in said) == (may_have, not may_have)
    ledgers = (await day.run("reconcile")).json
    assert (ledgers["doubtful_events"], ledgers["dead_events"]) == ((1, 0) if may_have else (0, 1))
    compared = await day.run("reconcile", "--lago")
    assert (compared.code, compared.json["complaints"]) == (0, []), compared.out
    dismissed = (await day.run("dlq", "dismiss", "--until", "0s", "--dry-run")).json
    assert (dismissed["dismissed"], dismissed["dismissed_maybe_at_lago"]) == (1, int(may_have))
    for option, count in (("--may-be-in-lago", int(may_have)), ("--not-in-lago", int(not may_have))):
        assert (await day.run("dlq", "list", option)).json["count"] == count, option
        for action in (("requeue",), ("dismiss", "--until", "0s")):
            assert (await day.run("dlq", *action, option, "--dry-run")).json["count"] == count, (action, option)
    for words in (("list",), ("dismiss", "--until", "0s", "--dry-run")):
        said = (await meterbridge(day.stage, "dlq", *words)).out
        assert ("--not-in-lago" in said) == may_have, said
    ((_, recovered),) = dead_letters_of(TOPICS, "meterbridge", (await stored_state(day.database)).events)
    assert maybe_sent_of(recovered.headers) is may_have

    assert (await day.run("dlq", "requeue")).json["requeued"] == 1
    async with posting(day):
        await until(day.database, "SELECT status FROM lago_events", lambda status: status == "completed", 30)
    assert await rows(day.database, FACT) == [(None,)]
    assert (await day.lago.stats())["totals"]["calls"] == 3


async def test_an_amount_that_lago_has_of_an_event_that_it_cannot_have_is_a_complaint(day: BilledDay) -> None:
    """The fact decides also against a reason that leaves it open."""
    await fail(day, STORED)
    for change, code in (("maybe_sent = false", 1), ("maybe_sent = NULL", 0), ("reason = 'lago_refused'", 1)):
        await day.tamper(f"UPDATE usage_parts SET {change}")
        compared = await day.run("reconcile", "--lago")
        assert compared.code == code, (change, compared.out)


@pytest.mark.parametrize("together", [True, False])
async def test_the_fact_is_that_of_the_latest_failure(database: str, together: bool) -> None:
    """A requeued event that fails again, before and after its row is written; a topic that is read again."""
    said = [
        receipt("failed", 1, reason="http_409", maybe_sent=True),
        receipt("processing", 2, reason="requeued"),
        receipt("failed", 3, reason="lago_refused", maybe_sent=False),
    ]
    async with Writer(database) as writer:
        await writer.put(TOPICS.events, event(), manifest=manifest())
        for batch in [said, said] if together else [[one] for one in (*said, *said)]:
            await writer.put(TOPICS.receipts, *batch)
            if batch[-1].status == "processing":
                assert await rows(database, FACT) == [(None,)]
    assert await rows(database, FACT) == [(False,)]


async def test_a_later_failure_that_a_projector_of_an_earlier_release_wrote_is_not_known(database: str) -> None:
    """During a rolling upgrade, or after a roll-back: it leaves the fact of the earlier failure in its columns."""
    async with Writer(database) as writer:
        await writer.put(TOPICS.events, event(), manifest=manifest())
        await writer.put(TOPICS.receipts, receipt("failed", 1, reason="lago_refused", maybe_sent=False))
        assert await rows(database, FACT) == [(False,)]
        await rows(database, EARLIER_RELEASE, event().transaction_id)
        [(reason, fact)] = await rows(database, "SELECT reason, maybe_sent FROM lago_events")
        assert (fact, lago_may_have(reason, fact)) == (None, True)
        await writer.put(TOPICS.receipts, receipt("failed", 1, reason="http_409", maybe_sent=False))
    assert await rows(database, FACT) == [(False,)]


async def test_a_receipt_of_an_earlier_sink_has_no_fact(database: str) -> None:
    """The new projector beside it, and with the rows and topics from before the upgrade."""
    async with Writer(database) as writer:
        await writer.put(TOPICS.events, event(), manifest=manifest())
        await writer.put(TOPICS.receipts, receipt("failed", 1, reason="lago_refused", maybe_sent=False))
        await writer.put(TOPICS.receipts, receipt("failed", 2, reason="http_409"))
    assert await rows(database, FACT) == [(None,)]


async def test_a_dead_letter_from_before_the_migration_has_no_fact(postgres_url: str) -> None:
    async with fresh_database(postgres_url) as url:
        await migrate(url, migrations()[:22])
        await rows(url, EARLIER_RELEASE, "a")
        await rows(url, "UPDATE usage_parts SET event = '{}'")
        await migrate(url)
        assert await rows(url, FACT) == [(None,)]
        ((_, recovered),) = [(row["part"], row["maybe_sent"]) for row in (await stored_state(url)).events]
        assert recovered is None
