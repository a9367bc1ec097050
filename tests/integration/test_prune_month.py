"""`db prune` reads a month while others read and write it, and deletes only calls that it has read.

The reading stops at each row: in this database `date_trunc` waits for a lock of the test. It takes two locks one after the
other, and the test always holds one of them, so the reading cannot pass two rows at once.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from connectors.postgres import forget_month
from connectors.postgres.prune import Pruned, prune
from schemas.errors import Unavailable
from tests.support.database import migrated_database, rows, until
from tests.support.history import TOPICS
from tests.support.projection import Writer, usage

MAY = datetime(2026, 5, 3, tzinfo=UTC)
TABLE = "llm_usage_log_2026_05"
STOPS = """
CREATE FUNCTION date_trunc(unit text, moment timestamp) RETURNS timestamp LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
    PERFORM pg_advisory_lock_shared(2), pg_advisory_unlock_shared(2);
    RETURN pg_catalog.date_trunc(unit, moment);
END
$$
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
LOCKED = """SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation IN
    ('llm_usage_log'::regclass, to_regclass('llm_usage_log_2026_05'))"""
WATCHED = "SELECT count(*) FROM pg_trigger WHERE tgname = 'watched'"


def call(number: int, at: datetime = MAY, ended: datetime | None = None, **fields: Any) -> Any:
    of_part = {} if "held" in fields else {"part": "", "decision": "cache_hit"}
    return usage(number, start=at.isoformat(), end=(ended or at).isoformat(), **of_part, **fields)


async def put(url: str, *calls: Any) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls)


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """A database with three calls of May, of which one ended in June."""
    async with migrated_database(postgres_url) as url:
        june = MAY.replace(month=6, day=1)
        await put(url, call(1), call(2), call(3, june - timedelta(seconds=5), june))
        yield url


@pytest.fixture
async def stops(url: str) -> AsyncIterator[Any]:
    """A connection whose lock stops the reading at every row."""
    [(name,)] = await rows(url, "SELECT current_database()")
    await rows(url, STOPS)
    await rows(url, f"ALTER DATABASE {name} SET search_path = public, pg_catalog")
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_advisory_lock(1)")
    yield connection
    await connection.close()


async def on(stops: Any) -> None:
    """Let the reading continue to its next row."""
    await stops.execute("SELECT pg_advisory_lock(2), pg_advisory_unlock(1), pg_advisory_lock(1), pg_advisory_unlock(2)")


async def stopped(url: str, pruning: "asyncio.Task[Pruned]") -> bool:
    """Wait until the reading is at a row; returns False when it is over."""
    while not pruning.done():
        if (await rows(url, WAITING))[0][0]:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_readers_and_writers_continue_while_a_month_is_read(url: str, stops: Any) -> None:
    """Earlier the whole month was counted and copied under a lock: readers and the projector waited as long as that
    took.
    """
    pruning = asyncio.create_task(prune(url, MAY + timedelta(days=29)))
    places = 0
    while await stopped(url, pruning):
        places += 1
        assert await rows(url, LOCKED) == [(0,)], "no query waits for the reading"
        assert (await rows(url, "SELECT count(*) FROM llm_usage_log")) == [(3,)]
        await rows(url, "UPDATE llm_usage_log SET note = note WHERE false")
        await on(stops)
    assert (await pruning).months == {"2026-05": 2} and places >= 6
    assert await rows(url, f"SELECT count(*) FROM {TABLE}") == [(1,)], "it ended in June, which is not over"
    assert await rows(url, "SELECT month::text FROM forgotten_months") == [("2026-05-01",)]
    assert await rows(url, WATCHED) == [(0,)]


@pytest.mark.parametrize("needs_work", [True, False])
async def test_calls_written_between_the_reading_and_the_lock_are_read_before_the_decision(
    url: str, stops: Any, needs_work: bool
) -> None:
    """In an earlier version a held call was deleted unread, and was in no list any more."""
    pruning = asyncio.create_task(prune(url, MAY + timedelta(days=29)))
    added = False
    while await stopped(url, pruning):
        if not added and await rows(url, WATCHED) == [(1,)]:
            await put(url, call(4, held="no_mapping") if needs_work else call(4))
            added = True
        await on(stops)
    done = await pruning
    assert added and (done.months, done.kept) == (({}, {"2026-05": 1}) if needs_work else ({"2026-05": 3}, {}))
    assert await rows(url, f"SELECT count(*) FROM {TABLE}") == [(4 if needs_work else 1,)]
    assert await rows(url, "SELECT count(*) FROM forgotten_months") == [(0 if needs_work else 1,)]
    assert await rows(url, WATCHED) == [(0,)], "what is kept is not watched any more"


async def test_an_event_projected_while_a_month_is_read_keeps_its_calls(url: str, stops: Any) -> None:
    """Earlier its calls were deleted before they were corrected, and the difference was not debited any more."""
    await rows(url, "UPDATE llm_usage_log SET part = 'topic-0-9' WHERE ended_at < '2026-06-01'")
    await rows(
        url,
        "INSERT INTO usage_parts (part, event, status, processed_at) VALUES ('topic-0-9', '{\"currency\": \"USD\"}', 'completed', now())",
    )
    pruning = asyncio.create_task(prune(url, MAY + timedelta(days=29)))
    projected = False
    while await stopped(url, pruning):
        if not projected and await rows(url, WATCHED) == [(1,)]:
            await rows(url, "INSERT INTO corrected_parts (part) VALUES ('topic-0-9')")
            projected = True
        await on(stops)
    done = await pruning
    assert projected and (done.months, done.kept) == ({}, {"2026-05": 2})
    assert await rows(url, f"SELECT count(*) FROM {TABLE}") == [(3,)]
    assert await rows(url, "SELECT count(*) FROM forgotten_months") == [(0,)]
    assert await rows(url, WATCHED) == [(0,)]


async def test_calls_being_written_when_the_reading_begins_are_waited_for(url: str) -> None:
    writer = await asyncpg.connect(url)
    try:
        async with writer.transaction():
            await writer.execute(f"CREATE TEMP TABLE one ON COMMIT DROP AS SELECT * FROM {TABLE} LIMIT 1")
            await writer.execute(
                "UPDATE one SET identity = decode(md5('new'), 'hex'), part = 'topic-0-9', held = 'no_mapping'"
            )
            await writer.execute("INSERT INTO llm_usage_log SELECT * FROM one")
            pruning = asyncio.create_task(prune(url, MAY + timedelta(days=29)))
            await until(url, "SELECT count(*) FROM pg_locks WHERE NOT granted", lambda count: count > 0)
        done = await pruning
        assert (done.months, done.kept) == ({}, {"2026-05": 1})
    finally:
        await writer.close()


async def test_a_month_that_is_written_to_all_the_time_is_kept_and_reported(
    url: str, stops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget_month, "_READINGS", 2)
    pruning = asyncio.create_task(prune(url, MAY + timedelta(days=29)))
    while await stopped(url, pruning):
        await rows(url, f"UPDATE {TABLE} SET note = note")
        await on(stops)
    with pytest.raises(Unavailable, match="postgres_busy: the calls of 2026-05 are being written"):
        await pruning
    assert await rows(url, f"SELECT count(*) FROM {TABLE}") == [(3,)]
    assert await rows(url, "SELECT count(*) FROM forgotten_months") == [(0,)]


async def test_a_month_in_use_is_tried_again_and_others_are_let_through_in_between(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget_month, "_SHORT", "SET LOCAL lock_timeout = '50ms'")
    monkeypatch.setattr(forget_month, "_PAUSE_S", 0.05)
    reader = await asyncpg.connect(url)
    try:
        async with reader.transaction():
            await reader.execute(f"LOCK TABLE ONLY {TABLE} IN ACCESS SHARE MODE")
            pruning = asyncio.create_task(prune(url, MAY + timedelta(days=29)))
            for _ in range(2):
                await until(url, "SELECT count(*) FROM pg_locks WHERE NOT granted", lambda count: count > 0)
                await rows(url, f"SELECT count(*) FROM {TABLE}")
        assert (await pruning).months == {"2026-05": 2}
    finally:
        await reader.close()
