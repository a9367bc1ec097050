"""The record-batch transport: no fetch batch is lost even if Faust drops one; and its connections to Faust's internals
are as expected.
"""

import inspect
import time
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.drivers import aiokafka as driver

from streams.runtime.role import Role
from tests.support.calls import raw, slp
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.stage import Stage


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=1)


def drop_chunks(role: Role, which: set[int]) -> tuple[list[int], dict[str, int]]:
    """Makes Faust lose fetch batches, as it may around rebalances: returns how many were lost, by number, and how many
    there were.
    """
    lost: list[int] = []
    lane_offers = {"count": 0}
    for partition_task in role.partition_tasks.values():
        offer = partition_task.offer

        def losing(fetch_batch: Any, offer: Any = offer) -> None:
            lane_offers["count"] += 1
            if lane_offers["count"] in which:
                lost.append(lane_offers["count"])
                return
            offer(fetch_batch)

        partition_task.offer = losing  # type: ignore[method-assign]
    return lost, lane_offers


async def test_a_fetch_batch_that_the_meter_never_got_is_fetched_again(stage: Stage) -> None:
    stage.map("acme", "org", "sub")
    async with stage.running("meter", stage.parts()) as role:
        await soon(
            lambda: (
                role.partition_tasks
                and all(partition_task.expected is not None for partition_task in role.partition_tasks.values())
            )
        )
        lost, taken = drop_chunks(role, {2, 4})
        for start in range(0, 60, 10):
            at = time.time_ns() // 1000
            stage.put([raw(0, slp(n, at_us=at), received_us=at) for n in range(start, start + 10)])
            offered = start // 10 + 1
            await soon(lambda offered=offered: taken["count"] >= offered)  # type: ignore[misc]
        await soon(lambda: stage.sensors.calls.get("billable") == 60)
        assert lost == [2, 4]
        await soon(lambda: stage.sensors.missing >= 1)
    assert "duplicate" not in stage.sensors.calls


async def test_a_refetch_by_a_partition_task_does_not_wait_for_an_empty_fetch(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker holds one fetch of a consumer. Faust allows 1.5 s for it, here an hour."""
    create = AIOKafkaConsumer.__init__

    def patient(consumer: Any, *topics: Any, **options: Any) -> None:
        if options.get("fetch_max_wait_ms") == 1500:
            options |= {"fetch_max_wait_ms": 3_600_000, "request_timeout_ms": 7_200_000}
        create(consumer, *topics, **options)

    monkeypatch.setattr(AIOKafkaConsumer, "__init__", patient)
    async with stage.running("meter", stage.parts()) as role:
        await soon(
            lambda: (
                role.partition_tasks
                and all(partition_task.expected is not None for partition_task in role.partition_tasks.values())
            )
        )
        (partition_task,) = role.partition_tasks.values()
        at = time.time_ns() // 1000
        stage.put([raw(0, slp(0, at_us=at), received_us=at)])
        await soon(lambda: partition_task.expected == 1)
        _, taken = drop_chunks(role, set())
        for times in range(1, 6):
            await partition_task._source.seek_partition(partition_task.tp, 0)
            await soon(lambda times=times: taken["count"] == times)  # type: ignore[misc]


def source_of(thing: Any) -> str:
    return inspect.getsource(thing)


def test_the_internals_of_faust_are_where_the_transport_expects_them() -> None:
    """An upgrade that moves one of them must be reviewed by an engineer who knows docs/adr/0001."""
    assert faust.__version__ == "0.15.3"
    assert "self._new_transport()" in source_of(faust.App)
    assert "self._thread = self._new_consumer_thread()" in source_of(driver.ThreadDelegateConsumer)
    assert "await self._wait_next_records(timeout)" in source_of(BaseConsumer.getmany)
    assert "self._new_offset(tp)" in source_of(BaseConsumer)
    assert "offset >= r_offset" in source_of(BaseConsumer._drain_messages)
    thread = driver.AIOKafkaConsumerThread
    assert "if self.consumer.in_transaction:" in source_of(thread._create_worker_consumer)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in source_of(AIOKafkaConsumer.start)
    assert "self._fetch_max_wait_ms," in source_of(Fetcher._get_actions_per_node)
    assert "backoff = self._fetcher_timeout" in source_of(Fetcher._get_actions_per_node)
    assert "fetcher.fetched_records(" in source_of(thread._fetch_records)
    assert "seek_to_committed()" in source_of(BaseConsumer.perform_seek)
