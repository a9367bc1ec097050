"""What an operator sees of events, held usage and rejections, with real Postgres."""

import re
from datetime import UTC, datetime
from hashlib import md5
from uuid import UUID

import msgspec
import pytest

from schemas.records import Receipt, Rejection
from streams.core.delivery.dead_letter_headers import AUDIT_ID, HOW, RESOLVES
from streams.core.delivery.event_states import EventStateCounter, totals
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS, TopicRecord, history
from tests.support.pages import DOCS, whole_page
from tests.support.projection import Writer, event, in_order, manifest, queue, receipt, usage


async def test_held_usage_is_shown_as_held_with_its_reason_until_an_event_takes_it(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, held="no_mapping"), usage(2, held="no_mapping", part=f"{PREFIX}9"))
        assert await queue(url) == [
            (f"{PREFIX}7", None, "acme", "held", 0, "no_mapping"),
            (f"{PREFIX}9", None, "acme", "held", 0, "no_mapping"),
        ]
        await writer.put(TOPICS.enriched, usage(3, held="inactive"))  # the reason stays that of the first call
        assert (await queue(url))[0][-1] == "no_mapping"
        await writer.put(TOPICS.events, event(), manifest=manifest(9), seal_seq=b"1")
    assert await queue(url) == [(f"{PREFIX}7", "org", "acme", "pending", 0, None)]
    assert await rows(url, "SELECT part, transaction_id FROM held_parts ORDER BY 1") == [
        (f"{PREFIX}7", f"{PREFIX}7"),
        (f"{PREFIX}9", f"{PREFIX}7"),
    ]


async def test_the_queue_has_exactly_the_documented_columns(url: str) -> None:
    columns = await rows(
        url,
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'event_queue' ORDER BY ordinal_position",
    )
    assert columns == [
        ("id", "uuid"),
        ("transaction_id", "text"),
        ("external_customer_id", "text"),
        ("event_data", "jsonb"),
        ("customer_mapping_id", "text"),
        ("status", "text"),
        ("retry_count", "integer"),
        ("error_message", "text"),
        ("created_at", "timestamp with time zone"),
        ("processed_at", "timestamp with time zone"),
        ("last_retry_at", "timestamp with time zone"),
    ]


async def test_an_events_id_is_derived_from_its_transaction_id_and_its_columns_contain_the_event(url: str) -> None:
    """It needs no extension, and recreated tables have the same ids."""
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage())
        await writer.put(TOPICS.events, event(), manifest=manifest())
    columns = "transaction_id, external_customer_id, event_data->>'external_subscription_id', customer_mapping_id"
    shown = f"SELECT id, {columns}, created_at FROM event_queue"
    [(number, *held, created)] = await rows(url, shown)
    made = f"{PREFIX}7"
    assert number == UUID(md5(made.encode(), usedforsecurity=False).hexdigest())
    assert held == [made, "org", "sub", "acme"]
    assert created == datetime.fromtimestamp(1_795_176_000, UTC)
    assert await rows(url, "SELECT count(*) FROM pg_extension WHERE extname = 'uuid-ossp'") == [(0,)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("said", "status", "retries", "settled", "retried"),
    [
        ([], "pending", 0, None, None),
        ([("pending", 1)], "pending", 0, None, None),
        ([("pending", 1), ("processing", 2), ("completed", 3)], "completed", 2, 3, 2),
        ([("processing", 2), ("pending", 1)], "processing", 0, None, 2),
        ([("processing", 2), ("failed", 3)], "failed", 1, 3, 2),
        ([("failed", 3), ("processing", 5)], "processing", 1, None, 5),
        ([("failed", 3), ("processing", 5), ("completed", 6)], "completed", 2, 6, 5),
        ([("completed", 3), ("processing", 5), ("failed", 6)], "completed", 0, 3, None),
        ([("completed", 3), ("surprised", 5)], "completed", 0, 3, None),
    ],
)
async def test_a_state_only_moves_forward(
    url: str,
    said: list[tuple[str, int]],
    status: str,
    retries: int,
    settled: int | None,
    retried: int | None,
    together: bool,
) -> None:
    """Completed is final, pending is only a start; a requeued dead letter moves again. In one batch or in many."""
    receipts = [receipt(status, at, attempts=number) for number, (status, at) in enumerate(said)]
    async with Writer(url) as writer:
        await writer.put(TOPICS.events, event(), manifest=manifest())
        for fetch_batch in [receipts] if together and receipts else [[one] for one in receipts]:
            await writer.put(TOPICS.receipts, *fetch_batch)
    times = "extract(epoch FROM processed_at)::int, extract(epoch FROM last_retry_at)::int"
    assert await rows(url, f"SELECT status, retry_count, {times} FROM event_queue") == [
        (status, retries, settled, retried)
    ]


@pytest.mark.parametrize("together", [True, False])
async def test_an_event_that_lago_withdraws_has_failed_though_it_was_completed(url: str, together: bool) -> None:
    """Any other receipt after `completed` is a late one; Lago's notice that no invoice will count the event is not."""
    result = [
        receipt("completed", 1),
        receipt("failed", 2, reason="lago_refused"),
        receipt("failed", 3, reason="unbillable_invalid_code"),
        receipt("pending", 4),
    ]
    async with Writer(url) as writer:
        await writer.put(TOPICS.events, event(), manifest=manifest())
        for fetch_batch in [result] if together else [[one] for one in result]:
            await writer.put(TOPICS.receipts, *fetch_batch)
        asked = "SELECT status, error_message, extract(epoch FROM processed_at)::int FROM event_queue"
        assert await rows(url, asked) == [("failed", "unbillable_invalid_code", 3)]
        await writer.put(TOPICS.receipts, receipt("completed", 5))
        assert await rows(url, asked) == [("completed", None, 5)]


async def test_written_off_held_usage_has_failed_with_that_reason_and_stays_so(url: str) -> None:
    """An operator's decision is recorded; later receipts of the part do not undo it."""
    async with Writer(url) as writer:
        await writer.put(TOPICS.receipts, Receipt(f"{PREFIX}7", "written_off", 1_000_000, calls=1, reason="audit-1"))
        assert await queue(url) == []
        await writer.put(TOPICS.enriched, usage(1, held="no_mapping"))
        await writer.put(TOPICS.receipts, receipt("processing", 2))
    assert await queue(url) == [(f"{PREFIX}7", None, "acme", "failed", 0, "written_off")]
    assert await rows(url, "SELECT transaction_id, extract(epoch FROM written_off_at)::int FROM held_parts") == [
        (None, 1)
    ]


@pytest.mark.parametrize("together", [True, False])
async def test_the_mark_of_a_rejection_is_stored_with_it(url: str, together: bool) -> None:
    """The mark follows the dead letter in the same partition; it has no value."""
    dead_letters = [
        TopicRecord(n, 5000, b"acme", msgspec.json.encode(Rejection("bad_cost", "meter", 1, "x\0", n)))
        for n in range(3)
    ]
    marks = [
        TopicRecord(3 + n, 9000, b"acme", None, ((RESOLVES, b"1"), (HOW, how), (AUDIT_ID, b"audit")))
        for n, how in enumerate((b"known", b"purged"))
    ]
    async with Writer(url) as writer:
        for fetch_batch in [dead_letters + marks] if together else [dead_letters, marks]:
            result = await writer.take(TOPICS.rejected, 0, fetch_batch)
            assert result is not None and result.skipped == {}
    found = await rows(
        url, 'SELECT "offset", detail, resolution, extract(epoch FROM resolved_at)::int FROM rejected_calls ORDER BY 1'
    )
    assert found == [(0, "x", None, None), (1, "x", "purged", 9), (2, "x", None, None)]


async def test_the_query_for_a_state_uses_an_index(url: str) -> None:
    """A dashboard asks for failed events, with or without a million completed ones."""
    async with Writer(url) as writer:
        await writer.put(TOPICS.events, *(event(n) for n in range(3000)))
        done = [Receipt(f"{PREFIX}{n}", "completed" if n else "failed", 1_000_000 + n) for n in range(3000)]
        await writer.put(TOPICS.receipts, *done)
    await rows(url, "ANALYZE usage_parts")
    asked = "FROM event_queue WHERE status = 'failed' ORDER BY created_at DESC LIMIT 100"
    assert await rows(url, f"SELECT transaction_id {asked}") == [(f"{PREFIX}0",)]
    assert "usage_parts_status" in "\n".join(line for (line,) in await rows(url, f"EXPLAIN SELECT * {asked}"))


async def test_pending_is_the_same_number_in_every_place(url: str) -> None:
    """The queue, `GET /metrics` and Prometheus: the latter two count receipts. Held usage is no event, and shown
    separately.
    """
    past = history(7, calls=300)
    await in_order(url, past)
    tallies = []
    for (topic, _), log in past.logs.items():
        if topic == TOPICS.receipts:
            tallies.append(EventStateCounter())
            tallies[-1].take([msgspec.json.decode(one.value or b"", type=Receipt) for one in log])
    result = dict(await rows(url, "SELECT status, count(*) FROM event_queue GROUP BY 1"))
    [(held,)] = await rows(
        url, "SELECT count(*) FROM held_parts WHERE transaction_id IS NULL AND written_off_at IS NULL"
    )
    assert result.get("held") == held > 0
    counted = totals(tallies)
    assert result.get("pending", 0) + result.get("processing", 0) == counted.pending_events
    assert result["completed"] == counted.completed_events


async def test_every_query_on_the_page_about_the_database_can_be_run(url: str) -> None:
    """A user who copies one gets an answer, not an error."""
    await in_order(url, history(4, calls=200))
    pages = whole_page("database.md") + (DOCS / "close-month.md").read_text("utf-8")
    questions = re.findall(r"```sql\n(.*?)```", pages, re.DOTALL)
    assert len(questions) >= 6
    answers = [await rows(url, question) for question in questions]
    [(_, reason, calls, usd, _)] = answers[3]
    assert (reason, calls > 0, usd > 0) == ("no_mapping", True, True)
    assert {status for status, *_ in answers[4]} == {"held", "failed"}
