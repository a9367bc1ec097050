"""The usage log with real Postgres: any call has its row, with any time and any text."""

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from schemas.errors import Rejected
from streams.agents.projector import PartitionPosition, Projected
from tests.support.database import rows
from tests.support.eventually import PATIENCE
from tests.support.history import TOPICS, TopicRecord
from tests.support.projection import Writer, event, manifest, receipt, usage


async def test_an_existing_call_is_counted_and_not_changed(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, held="no_mapping"))
        result = await writer.put(TOPICS.enriched, usage(1, held="no_mapping", offset=9), usage(2))
    assert result == Projected({"llm_usage_log": 1}, {"repeated": 1})
    assert await rows(url, "SELECT calls FROM held_parts") == [(1,)]


@pytest.mark.parametrize(
    ("start", "partition"),
    [
        ("1970-01-01T00:00:00.000000Z", "llm_usage_log_before_2020"),
        ("2019-12-31T23:59:59.999999Z", "llm_usage_log_before_2020"),
        ("2020-01-01T00:00:00.000000Z", "llm_usage_log_2020_01"),
        ("2024-02-29T23:59:59.999999Z", "llm_usage_log_2024_02"),
        ("2099-12-31T23:59:59.999999Z", "llm_usage_log_2099_12"),
        ("9999-12-31T23:59:59.999999Z", "llm_usage_log_from_2100"),
    ],
)
async def test_a_call_of_any_time_has_a_partition(url: str, start: str, partition: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(start=start))
        assert await rows(url, "SELECT tableoid::regclass::text FROM llm_usage_log") == [(partition,)]


async def test_months_are_created_while_others_write_and_read(url: str) -> None:
    """Creating one must neither wait for a long query nor stop the writers of other months; several may create the
    same.
    """
    async with Writer(url) as writer, writer.database.connection() as reader:
        await reader.execute("BEGIN; SELECT count(*) FROM llm_usage_log")
        months = [usage(n, start=f"20{30 + n // 4}-05-01T00:00:00.000000Z") for n in range(8)]
        await asyncio.wait_for(
            asyncio.gather(
                *(
                    writer.take(TOPICS.enriched, n, [TopicRecord(0, 0, b"", msgspec.json.encode(one))])
                    for n, one in enumerate(months)
                )
            ),
            10 * PATIENCE,
        )
        await reader.execute("COMMIT")
    assert await rows(url, "SELECT count(*) FROM llm_usage_log") == [(8,)]


async def test_a_month_that_an_operator_dropped_is_created_again(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1))
        await rows(url, "DROP TABLE llm_usage_log_2026_11")
        await writer.put(TOPICS.enriched, usage(2))
    assert await rows(url, "SELECT raw_offset FROM llm_usage_log") == [(2,)]


async def test_nul_is_removed_from_text_and_json(url: str) -> None:
    r"""Postgres accepts none; a text that only contains the characters \u0000 keeps them."""
    nul, said = "a\0b", "a\\u0000b"
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, key_alias=nul, model=said, call_id="c\0"))
        await writer.put(TOPICS.events, event(model=nul, provider=said), manifest=manifest())
        await writer.put(TOPICS.receipts, receipt("failed", 1, reason=nul))
    assert await rows(url, "SELECT key_alias, model, alias FROM llm_usage_log") == [("ab", said, "c")]
    assert await rows(
        url,
        "SELECT event_data #>> '{properties,model}', event_data #>> '{properties,provider}', error_message FROM event_queue",
    ) == [("ab", said, "ab")]


async def test_a_foreign_record_is_counted_and_skipped(url: str) -> None:
    async with Writer(url) as writer:
        for topic in (TOPICS.enriched, TOPICS.events, TOPICS.receipts, TOPICS.rejected):
            result = await writer.put(topic, b"\0nonsense", b"{}", b"")
            assert result is not None and result.skipped == {"unreadable": 3}
    assert await rows(url, "SELECT sum(next), count(*) FROM projector_offsets") == [(12, 4)]


async def test_a_row_that_postgres_refuses_is_rejected_without_its_values(url: str) -> None:
    text = msgspec.json.encode(event(sesame="sesame")).replace(b"}}", b'},"x":1e400000}')
    async with Writer(url) as writer:
        with pytest.raises(Rejected) as refused:
            await writer.put(TOPICS.events, text)
        assert await writer.projection.place(TopicPartition(TOPICS.events, 0)) == PartitionPosition("id", 0)
    assert refused.value.reason == "row_refused" and "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"start": "2026-11-20T99:00:00.000000Z"},
        {"end": "2026-02-30T09:00:00.000000Z"},
        {"end": "2026-02-03"},
        {"start": "infinity"},
        {"cost_usd": Decimal("NaN")},
        {"cost_usd": Decimal("1e99999")},
        {"identity": "x"},
        {"tokens_input": -1},
    ],
)
async def test_a_call_with_an_impossible_value_is_rejected_and_the_log_has_a_known_gap(
    url: str, bad: dict[str, Any]
) -> None:
    async with Writer(url) as writer:
        result = await writer.put(TOPICS.enriched, usage(1), usage(2, **bad), usage(3))
    assert result == Projected({"llm_usage_log": 2}, {"unreadable": 1})
    assert await rows(url, 'SELECT topic, "offset", reason, problem FROM unprojected_records') == [
        (TOPICS.enriched, 1, "unreadable", "Unreadable")
    ]
    assert await rows(url, "SELECT since = '2026-11-20 12:00Z' FROM log_completeness") == [(True,)]


async def test_the_time_of_a_record_may_be_any_number(url: str) -> None:
    async with Writer(url) as writer:
        for offset, at_ms in enumerate((-1, 1 << 62, 1_795_176_000_000)):
            result = await writer.take(
                TOPICS.events, 0, [TopicRecord(offset, at_ms, b"", msgspec.json.encode(event(offset)))]
            )
            assert result is not None and result.skipped == ({} if offset == 2 else {"unreadable": 1})
            await writer.take(TOPICS.enriched, 0, [TopicRecord(offset, at_ms, b"", msgspec.json.encode(usage(offset)))])
    assert await rows(url, "SELECT count(*) FROM lago_events") == [(1,)]
    assert await rows(url, "SELECT count(*), max(recorded_ms) FROM unprojected_records") == [(4, 1 << 62)]
    assert await rows(url, "SELECT since <= now() FROM log_completeness") == [(True,)]


async def test_a_number_that_postgres_cannot_store_affects_only_its_own_row(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, tokens_input=2**70), usage(2))
    assert await rows(url, "SELECT count(*) FROM llm_usage_log") == [(1,)]


async def test_long_names_fit(url: str) -> None:
    """A client chooses its call ids and models: no index refuses them at any length."""
    long = "x" * 20_000
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, call_id=long, request_id=long, model=long, key_alias=long))
    assert await rows(url, "SELECT length(alias), length(call_id), length(model) FROM llm_usage_log") == [
        (71, 20_000, 20_000)
    ]


async def test_a_call_is_found_by_its_alias_and_start_and_by_its_customers_time(url: str) -> None:
    """Queries of a backfill and a dashboard: without an index either would read the whole log."""
    async with Writer(url) as writer:
        await writer.put(
            TOPICS.enriched,
            *(
                usage(
                    n,
                    call_id=f"call-{n}",
                    customer_id=f"c{n % 50}",
                    org_id="org",
                    end=f"2026-11-20T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}.000000Z",
                )
                for n in range(3000)
            ),
        )
    await rows(url, "ANALYZE llm_usage_log")
    for condition, index in (
        (
            "alias = 'call-7' AND started_at BETWEEN '2026-11-20 12:00Z'::timestamptz - interval '2 ms' AND '2026-11-20 12:00Z'::timestamptz + interval '2 ms'",
            "alias_started_at",
        ),
        (
            "customer_id = 'c7' AND ended_at >= '2026-11-20 00:10Z' AND ended_at < '2026-11-20 00:11Z'",
            "customer_id_ended_at",
        ),
        ("part = 'none'", "part"),
    ):
        plan = "\n".join(line for (line,) in await rows(url, f"EXPLAIN SELECT * FROM llm_usage_log WHERE {condition}"))
        assert f"llm_usage_log_2026_11_{index}_idx" in plan, plan
