"""A table never claims to be fresher than it is, and an idle table makes few requests. In virtual time."""

import asyncio
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from streams.runtime import compacted_table
from streams.runtime.compacted_table import TopicTable
from tests.support.virtual_time import run_virtually, virtual_now
from tests.support.virtual_topic import Answer, VirtualTopic, Written

PARTITIONS = 2
#: Eighths of a second: sums of them are exact.
MOMENTS = st.integers(0, 80).map(lambda number: number / 8)
DELAYS = st.integers(0, 24).map(lambda number: number / 8)
RECORDS = st.lists(st.builds(Written, st.integers(0, PARTITIONS - 1), MOMENTS), max_size=12)
ANSWERS = st.lists(st.builds(Answer, DELAYS, DELAYS, st.booleans()), max_size=6)


class Counting(TopicTable):
    """Counts the records of each partition that it took."""

    def __init__(self, fresh_s: float) -> None:
        super().__init__({}, "topic", virtual_now, "table", fresh_s)
        self.taken = [0] * PARTITIONS

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        self.taken[partition] += len(records)


@given(records=RECORDS, answers=ANSWERS, behind_s=DELAYS, fresh_s=st.sampled_from([1.0, 5.0]))
def test_a_table_has_every_record_that_was_durable_at_the_time_that_it_claims(
    records: list[Written], answers: list[Answer], behind_s: float, fresh_s: float
) -> None:
    """For any network delays, and even if a new leader's fetches lack durable records for a while (KIP-207)."""
    table, checks = Counting(fresh_s), 0

    def judge() -> None:
        nonlocal checks
        if table.lag_s() == float("inf"):
            return
        checks += 1
        as_of = virtual_now() - table.lag_s()
        for partition, taken in enumerate(table.taken):
            assert taken >= topic.durable(partition, as_of), f"claims to be as of {as_of}"

    topic = VirtualTopic(PARTITIONS, tuple(sorted(records, key=lambda one: one.at)), iter(answers), behind_s, judge)

    async def follow() -> None:
        table.begin()
        await table.wait_fresh(float("inf"))
        for _ in range(200):
            judge()
            await asyncio.sleep(0.125)
        assert table.taken == [len(topic.records[partition]) for partition in range(PARTITIONS)]
        await table.stop()

    with patch.object(compacted_table, "reading", topic.reading):
        run_virtually(follow())
    assert checks > 100


@pytest.mark.parametrize("fresh_s", [1.0, 5.0])
@pytest.mark.parametrize("slowly", [False, True])
def test_an_idle_table_is_never_older_than_its_readers_allow(fresh_s: float, slowly: bool) -> None:
    """Even if each request for the end offset waits behind a fetch that the broker holds as long as allowed."""
    table, ages = Counting(fresh_s), list[float]()
    held = (Answer(there=fresh_s * 0.2) for _ in iter(int, 1)) if slowly else ()
    topic = VirtualTopic(PARTITIONS, (), held)

    async def follow() -> None:
        await table.start()
        for _ in range(600):
            ages.append(table.lag_s())
            await asyncio.sleep(0.1)
        await table.stop()

    with patch.object(compacted_table, "reading", topic.reading):
        run_virtually(follow())
    assert topic.options["fetch_max_wait_ms"] == fresh_s * 200
    assert max(ages) <= fresh_s * 0.75


@pytest.mark.parametrize(("fresh_s", "ends", "fetches"), [(5.0, 31, 62), (1.0, 151, 455)])
def test_an_idle_table_makes_few_requests_a_minute(fresh_s: float, ends: int, fetches: int) -> None:
    table, topic = Counting(fresh_s), VirtualTopic(PARTITIONS)

    async def follow() -> None:
        await table.start()
        await asyncio.sleep(60)
        await table.stop()

    with patch.object(compacted_table, "reading", topic.reading):
        run_virtually(follow())
    assert 0 < topic.asked <= ends
    assert 0 < topic.fetched <= fetches


def test_a_record_is_read_when_it_arrives_and_not_at_the_next_request() -> None:
    table = Counting(5.0)
    moments = [3.25, 7.875, 31.5]
    topic = VirtualTopic(PARTITIONS, tuple(Written(1, at) for at in moments))

    async def follow() -> None:
        await table.start()
        for offset, at in enumerate(moments):
            await table.wait_offset(1, offset)
            assert virtual_now() == pytest.approx(at)
        await table.stop()

    with patch.object(compacted_table, "reading", topic.reading):
        run_virtually(follow())
