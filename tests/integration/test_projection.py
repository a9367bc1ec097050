"""The projector's SQL with real Postgres: the tables depend only on the topics, for any order of reading."""

import asyncio
import random
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
from aiokafka import TopicPartition
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connectors.postgres.migrate import migrate
from schemas.errors import Unavailable
from schemas.records import Receipt
from streams.agents.projector import PartitionPosition
from tests.support.database import fresh_database, rows
from tests.support.eventually import PATIENCE
from tests.support.history import PREFIX, TOPICS, History, TopicRecord, history
from tests.support.postgres import Postgres
from tests.support.projection import Writer, emptied, event, in_order, snapshot, usage


def test_every_order_of_the_topics_gives_the_same_tables(postgres_url: str) -> None:
    """Topics and partitions are read independently: an event may be projected before the calls it bills, its receipt
    before both, and a release before the held usage.
    """

    async def shuffled(url: str, content: History, chance: random.Random) -> dict[str, Any]:
        left = {place: list(log) for place, log in content.logs.items()}
        async with Writer(url) as writer:
            while left:
                place = chance.choice(sorted(left))
                size = chance.randint(1, 20)
                await writer.take(*place, left[place][:size])
                left[place] = left[place][size:]
                if not left[place]:
                    del left[place]
        return await snapshot(url)

    with asyncio.Runner() as runner:
        scope = fresh_database(postgres_url)
        url = runner.run(scope.__aenter__())
        runner.run(migrate(url))

        # Not shrunk: every step would be a dozen transactions.
        @settings(
            max_examples=25,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate],
        )
        @given(st.integers(0, 5), st.randoms(use_true_random=False))
        def law(seed: int, chance: random.Random) -> None:
            content = history(seed)
            runner.run(emptied(url))
            expected = runner.run(in_order(url, content))
            runner.run(emptied(url))
            assert runner.run(shuffled(url, content, chance)) == expected

        try:
            law()
        finally:
            runner.run(scope.__aexit__(None, None, None))


async def test_topics_projected_concurrently_update_the_same_rows(url: str) -> None:
    """Every partition has its own partition task; each waits for the others' rows, none forever."""
    result = history(3, calls=200)
    expected = await in_order(url, result)
    await emptied(url)

    async def partition_task(writer: Writer, place: tuple[str, int], log: list[TopicRecord]) -> None:
        for start in range(0, len(log), 7):
            assert await writer.take(*place, log[start : start + 7]) is not None

    async with Writer(url) as writer:
        await asyncio.gather(*(partition_task(writer, place, log) for place, log in result.logs.items()))
    assert await snapshot(url) == expected


async def test_topics_that_name_the_same_parts_in_opposite_order_do_not_deadlock(url: str) -> None:
    """Postgres would end a deadlock after a second by refusing one of the two."""
    async with Writer(url) as writer:
        for start in range(10_000, 18_000, 2000):
            up, down = range(start, start + 2000), range(start + 1999, start - 1, -1)
            sealed, settled = (up, down) if start % 4000 else (down, up)
            await asyncio.gather(
                writer.put(TOPICS.events, *(event(first=number) for number in sealed)),
                writer.put(TOPICS.receipts, *(Receipt(f"{PREFIX}{number}", "completed", 1) for number in settled)),
            )
    assert await rows(url, "SELECT status, count(*) FROM event_queue GROUP BY 1") == [("completed", 8000)]


async def test_reading_a_topic_again_from_its_beginning_changes_nothing(url: str) -> None:
    """This is how an operator rebuilds a table: delete the offsets."""
    result = history(1)
    expected = await in_order(url, result)
    await rows(url, "TRUNCATE projector_offsets")
    assert await in_order(url, result) == expected


async def test_the_log_agrees_with_the_ledger_and_held_usage_with_its_windows(url: str) -> None:
    result = history(2, calls=200)
    await in_order(url, result)
    counted = dict(await rows(url, "SELECT decision, count(*) FROM llm_usage_log GROUP BY 1"))
    assert counted == result.decisions
    folded = result.ledger.position.counters.folded
    billed = "decision IN ('billable', 'failed_with_cost')"
    assert await rows(url, f"SELECT count(*), sum(cost_usd) FROM llm_usage_log WHERE {billed}") == [
        (folded.calls, folded.cost)
    ]
    held = [window for window in result.ledger.windows.values() if window.held]
    assert held and result.released
    assert await rows(url, "SELECT sum(calls), sum(cost_usd) FROM held_parts WHERE transaction_id IS NULL") == [
        (sum(window.count for window in held), sum(window.cost for window in held))
    ]
    assert await rows(
        url, "SELECT count(*) FROM event_queue WHERE status = 'held' AND event_data IS NULL"
    ) == await rows(url, "SELECT count(*) FROM held_parts WHERE transaction_id IS NULL")


@pytest.mark.parametrize("decision", ["billable", "failed_with_cost", "carried"])
async def test_a_failed_call_without_a_cost_gets_the_row_of_its_copy_with_a_cost(url: str, decision: str) -> None:
    free = usage(1, decision="failed_call", cost_usd=Decimal(0), status="failure", part="", ledger=PREFIX)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, free, usage(1, decision=decision, status="failure", offset=2), free)
    assert await rows(url, "SELECT decision, cost_usd > 0 FROM llm_usage_log") == [(decision, True)]


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_attempt_that_a_rebuilt_ledger_bills_is_billed_in_the_tables(url: str, at_once: bool) -> None:
    """Also after the topic has been read again, whose last record is that of the rebuilt ledger."""
    rows_of = (
        usage(1, decision="carried", status="failure", part="", ledger=PREFIX),
        usage(1, decision="failed_with_cost", status="failure"),
    )
    async with Writer(url) as writer:
        for batch in 2 * [rows_of] if at_once else [[row] for row in 2 * rows_of]:
            await writer.put(TOPICS.enriched, *batch)
    assert await rows(url, "SELECT decision, part <> '' FROM llm_usage_log") == [("failed_with_cost", True)]


async def test_every_billed_call_is_found_from_its_event_and_the_sums_agree(url: str) -> None:
    """Also calls that were held first: their part names the event they were released in."""
    result = history(4, calls=200)
    await in_order(url, result)
    off = """
    SELECT e.transaction_id FROM lago_events e JOIN usage_parts p ON e.transaction_id IN (p.part, p.released_in)
    JOIN llm_usage_log u ON u.part = p.part
    GROUP BY e.transaction_id, e.calls, e.amount_cents
    HAVING count(*) <> e.calls OR sum(u.cost_usd) * 100 <> e.amount_cents
    """
    assert await rows(url, off) == []
    assert (await rows(url, "SELECT count(*) FROM lago_events"))[0][0] == result.ledger.position.seal_seq


async def test_two_owners_never_both_write(url: str) -> None:
    """A frozen worker that continues finds that the partition has another owner, and writes no row."""
    async with Writer(url) as writer:
        tp = TopicPartition(TOPICS.enriched, 0)
        await writer.put(TOPICS.enriched, usage(1))
        late = [TopicRecord(0, 0, b"acme", msgspec.json.encode(usage(2)))]
        assert await writer.projection.project(tp, 0, 1, late) is None
        assert await writer.projection.place(tp) == PartitionPosition("id", 1)
    assert await rows(url, "SELECT count(*) FROM llm_usage_log") == [(1,)]


async def test_a_crash_of_postgres_reverts_rows_and_offset_together(postgres: Postgres, url: str) -> None:
    """Commits do not wait for the disk; a crash loses only the latest ones, and their writer notices it."""
    async with Writer(url) as writer:
        for start in range(1, 200, 10):
            await writer.put(TOPICS.enriched, *(usage(n, offset=n) for n in range(start, start + 10)))
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.restart)
    [(calls, place)] = await rows(
        url, "SELECT (SELECT count(*) FROM llm_usage_log), coalesce(sum(next), 0) FROM projector_offsets"
    )
    assert calls == place


async def test_a_frozen_writer_does_not_block_its_partition_forever(url: str) -> None:
    """Its open transaction locks the row with the partition's position: Postgres ends it after 10 s."""
    async with Writer(url) as frozen, Writer(url) as owner:
        await owner.put(TOPICS.enriched, usage(1))
        with pytest.raises(Unavailable):
            async with frozen.database.connection() as connection:
                await connection.execute("BEGIN")
                await connection.execute("UPDATE projector_offsets SET next = 99")
                result = await asyncio.wait_for(owner.put(TOPICS.enriched, usage(2)), 25 * PATIENCE)
                assert result is not None and result.rows == {"llm_usage_log": 1}
                await connection.execute("COMMIT")
        assert await owner.projection.place(TopicPartition(TOPICS.enriched, 0)) == PartitionPosition("id", 2)


async def test_a_cancelled_partition_task_stays_cancelled_after_any_connection_error(url: str) -> None:
    """The task is cancelled while Postgres becomes unavailable: it must not treat the cancellation as a lost connection and
    retry."""
    async with Writer(url) as writer:
        with pytest.raises(asyncio.CancelledError):
            async with writer.database.connection() as connection:
                number = await connection.fetchval("SELECT pg_backend_pid()")
                await rows(url, "SELECT pg_terminate_backend($1)", number)
                with pytest.raises(asyncpg.InterfaceError):  # the pool has closed it
                    while True:
                        connection.is_closed()
                        await asyncio.sleep(0.01)
                raise asyncio.CancelledError
        await writer.put(TOPICS.enriched, usage(1))
