"""The projector's work on a partition: it waits for Postgres, and its offsets are exact."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from aiokafka import TopicPartition

from schemas.errors import Rejected, Unavailable
from streams.agents.projector import PROJECT_LIMIT, Projected, ProjectWork
from streams.core.delivery.backoff import RetryPolicy
from tests.support.database import Watching
from tests.support.virtual_time import run_virtually, virtual_now

PLACE = TopicPartition("enriched", 3)


class Tables:
    """A projection in memory that a test can make unavailable, give to another owner, or make refuse an offset."""

    def __init__(self) -> None:
        self.next = 0
        self.offsets: list[int] = []
        self.away = 0
        self.too_many = 10_000
        self.sizes: list[int] = []
        self.bad: set[int] = set()
        self.asked: list[float] = []
        self.aside: list[tuple[int, str]] = []

    async def project(
        self, tp: TopicPartition, expected: int, following: int, records: Sequence[Any]
    ) -> Projected | None:
        self.asked.append(virtual_now())
        if self.away:
            self.away -= 1
            raise Unavailable("postgres_away")
        self.sizes.append(len(records))
        if len(records) >= self.too_many:
            raise Unavailable("postgres_slow")
        if self.bad & {record.offset for record in records}:
            raise Rejected("row_refused", "CheckViolationError 23514")
        if expected != self.next:
            return None
        self.next = following
        self.offsets += [record.offset for record in records]
        return Projected({"llm_usage_log": len(records)}, {})

    async def pass_over(self, tp: TopicPartition, expected: int, record: Any, problem: str) -> Projected | None:
        if self.away:
            self.away -= 1
            raise Unavailable("postgres_away")
        if expected != self.next:
            return None
        self.next = record.offset + 1
        self.aside.append((record.offset, problem))
        return Projected({}, {"row_refused": 1})


class ProjectorSetup:
    def __init__(self) -> None:
        self.tables, self.sensors = Tables(), Watching()
        policy = RetryPolicy(lambda: 1.0, base_s=0.2, cap_s=5.0)
        tables: Any = self.tables
        self.work = ProjectWork(PLACE, {}, "group", "id", tables, policy, asyncio.sleep, self.sensors)


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset, timestamp=1000 + offset) for offset in offsets]


def test_while_postgres_is_unavailable_the_same_rows_are_retried_less_and_less_often() -> None:
    bench = ProjectorSetup()
    bench.tables.away = 7
    assert run_virtually(bench.work.process(records(0, 1, 2))) == 3
    assert bench.tables.offsets == [0, 1, 2]
    waits = [
        round(later - sooner, 3) for sooner, later in zip(bench.tables.asked, bench.tables.asked[1:], strict=False)
    ]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert bench.sensors.failures == {"postgres_away": 7}
    assert bench.sensors.oldest[PLACE] == 1000


def test_a_partition_whose_position_moved_is_opened_again() -> None:
    """Through another owner, or a Postgres that lost its latest commits in a crash: the partition task reads the
    position again.
    """
    bench = ProjectorSetup()
    bench.tables.next = 5
    with pytest.raises(Unavailable) as result:
        run_virtually(bench.work.process(records(0, 1)))
    assert result.value.reason == "stale_projector" and bench.tables.offsets == []


def test_a_refused_row_is_skipped_alone_and_logged_once() -> None:
    bench = ProjectorSetup()
    bench.tables.bad = {0, 6, 10}
    with structlog.testing.capture_logs() as logs:
        assert run_virtually(bench.work.process(records(*range(11)))) == 11
    assert bench.tables.offsets == [1, 2, 3, 4, 5, 7, 8, 9] and bench.tables.next == 11
    assert bench.tables.aside == [(offset, "CheckViolationError 23514") for offset in (0, 6, 10)]
    assert bench.sensors.skipped == {"row_refused": 3}
    assert [one["event"] for one in logs] == ["record_not_projected"]


def test_a_partition_whose_position_moved_while_a_row_was_refused_is_opened_again() -> None:
    bench = ProjectorSetup()
    bench.tables.bad, bench.tables.next = {0}, 5
    with pytest.raises(Unavailable, match="stale_projector"):
        run_virtually(bench.work.process(records(0)))
    assert bench.tables.aside == []


def test_while_postgres_is_unavailable_no_row_counts_as_refused() -> None:
    """Only an error about the row itself is a refusal; a server that does not answer is waited for."""
    bench = ProjectorSetup()
    bench.tables.bad, bench.tables.away = {1}, 3
    assert run_virtually(bench.work.process(records(0, 1, 2))) == 3
    assert (bench.tables.offsets, bench.tables.aside) == ([0, 2], [(1, "CheckViolationError 23514")])
    assert bench.sensors.failures == {"postgres_away": 3}


def test_records_that_take_postgres_too_long_together_are_written_in_smaller_parts() -> None:
    """Before this, the same 4000 records were sent again for ever, and none behind them became a row."""
    bench = ProjectorSetup()
    bench.tables.too_many, bench.tables.bad = 700, {3, 3999}
    total = 2 * PROJECT_LIMIT
    assert run_virtually(bench.work.process(records(*range(total)))) == total
    assert sorted([*bench.tables.offsets, 3, 3999]) == list(range(total))
    assert [offset for offset, _ in bench.tables.aside] == [3, 3999]
    assert bench.tables.sizes.count(PROJECT_LIMIT) == 2, "what took too long is not tried again and again"
    assert sum(size >= 700 for size in bench.tables.sizes) < len(bench.tables.sizes) / 2
    bench.tables.too_many, bench.tables.sizes = 10_000, []
    run_virtually(bench.work.process(records(*range(total, 12 * PROJECT_LIMIT))))
    assert max(bench.tables.sizes) == PROJECT_LIMIT, "it is fast again"


def test_one_record_that_takes_postgres_too_long_is_waited_for() -> None:
    bench = ProjectorSetup()

    async def life() -> int:
        bench.tables.too_many = 1
        work = asyncio.ensure_future(bench.work.process(records(0, 1, 2)))
        await asyncio.sleep(60)
        assert not work.done() and set(bench.tables.sizes[3:]) == {1}
        bench.tables.too_many = 10
        return await work

    assert run_virtually(life()) == 3


def test_offsets_may_have_gaps_and_batches_are_bounded() -> None:
    """Control records of transactions use offsets that no consumer sees."""
    bench = ProjectorSetup()
    offsets = range(0, 3 * PROJECT_LIMIT, 2)
    assert run_virtually(bench.work.process(records(*offsets))) == offsets[-1] + 1
    assert len(bench.tables.asked) == 2 and bench.tables.offsets == list(offsets)


def test_a_partition_has_lag_until_no_record_has_come_for_a_while() -> None:
    """Between two fetch batches of a backlog the lag must not be zero."""
    bench = ProjectorSetup()

    async def life() -> list[int | None]:
        seen = []
        await bench.work.process(records(0))
        for _ in range(2):
            seen.append(bench.sensors.oldest[PLACE])
            await bench.work.punctuate()
        await bench.work.process(records(1))
        seen.append(bench.sensors.oldest[PLACE])
        await bench.work.punctuate()
        seen.append(bench.sensors.oldest[PLACE])
        await bench.work.punctuate()
        return [*seen, bench.sensors.oldest[PLACE]]

    assert run_virtually(life()) == [1000, 1000, 1001, 1001, None]


def test_closing_waits_for_postgres_only_during_a_request() -> None:
    bench = ProjectorSetup()
    bench.tables.away = 1

    async def life() -> list[bool]:
        task = asyncio.ensure_future(bench.work.process(records(0)))
        await asyncio.sleep(0.1)
        held = bench.work.in_transaction()
        await task
        return [held, bench.work.in_transaction()]

    assert run_virtually(life()) == [False, False]
