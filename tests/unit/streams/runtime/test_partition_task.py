"""A partition task loses no fetch batch, processes none twice, and ends when told to."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, ProducerFenced
from faust.types.tuples import TP
from structlog.testing import capture_logs

from schemas.errors import Unavailable
from streams.runtime.faust_transport import FetchBatch
from streams.runtime.partition_task import PartitionTask
from tests.support.eventually import soon, within

PLACE = TP("raw", 3)


class Source:
    """Records the calls that partition tasks make."""

    def __init__(self) -> None:
        self.seeks: list[int] = []
        self.paused = False
        self.fetched: int | None = None

    def fetched_to(self, tp: TP) -> int | None:
        return self.fetched

    async def seek_partition(self, tp: TP, offset: int) -> bool:
        self.seeks.append(offset)
        self.fetched = offset
        return True

    def pause_partitions(self, tps: Any) -> None:
        self.paused = True

    def resume_partitions(self, tps: Any) -> None:
        self.paused = False


class Work:
    """Processes records; a test can make it fail or wait."""

    def __init__(self, start: int = 0) -> None:
        self.position = start
        self.taken: list[int] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy = False
        self.opened = self.closed = self.ticks = 0

    async def open(self) -> int:
        self.opened += 1
        return self.position

    async def process(self, records: Sequence[Any]) -> int:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken += [record.offset for record in records]
        self.position = records[-1].offset + 1
        return self.position

    async def punctuate(self) -> None:
        await self.gate.wait()
        self.ticks += 1

    async def close(self) -> None:
        self.closed += 1

    def in_transaction(self) -> bool:
        return self.busy


def fetch_batch(start: int, stop: int, from_offset: int | None = None) -> FetchBatch:
    records: Any = [SimpleNamespace(offset=offset) for offset in range(start, stop)]
    return FetchBatch(records, start if from_offset is None else from_offset, stop)


class FatalErrors:
    """Records the error that would end the process."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def __call__(self, tp: TP, error: BaseException) -> None:
        self.errors.append(error)


async def no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


async def task_of(work: Work, source: Source, death: FatalErrors | None = None) -> PartitionTask:
    partition_task = PartitionTask(PLACE, work, source, death or FatalErrors(), no_wait)
    await soon(lambda: partition_task.expected is not None)
    return partition_task


async def test_a_task_seeks_to_its_works_position_before_it_takes_records() -> None:
    source = Source()
    partition_task = await task_of(Work(start=40), source)
    assert source.seeks == [40]
    await partition_task.close()


async def test_a_missing_batch_is_fetched_again() -> None:
    """[0,5) [5,9) lost [9,12): the partition task seeks to 5 and takes nothing until it comes."""
    work, source = Work(), Source()
    partition_task = await task_of(work, source)
    partition_task.offer(fetch_batch(0, 5))
    partition_task.offer(fetch_batch(9, 12))
    await soon(lambda: source.seeks == [0, 5])
    partition_task.offer(fetch_batch(5, 9))
    partition_task.offer(fetch_batch(9, 12))
    await soon(lambda: len(work.taken) == 12)
    assert work.taken == list(range(12))
    await partition_task.close()


async def test_a_missing_last_batch_before_a_pause_is_fetched_again_too() -> None:
    """[0,5) lost, nothing follows: no later fetch batch would show the gap."""
    work, source = Work(), Source()
    partition_task = await task_of(work, source)
    source.fetched = 5
    for punctuate in range(1, 5):
        partition_task.punctuate()
        await soon(lambda punctuate=punctuate: work.ticks == punctuate)  # type: ignore[misc]
    await soon(lambda: source.seeks == [0, 0])
    assert partition_task.gaps == 1
    partition_task.offer(fetch_batch(0, 5))
    await soon(lambda: len(work.taken) == 5)
    await partition_task.close()


async def test_repeated_and_overlapping_batches_are_processed_once() -> None:
    work = Work()
    partition_task = await task_of(work, Source())
    for piece in (fetch_batch(0, 5), fetch_batch(0, 5), fetch_batch(3, 8), fetch_batch(8, 9)):
        partition_task.offer(piece)
    await soon(lambda: len(work.taken) >= 9)
    assert work.taken == list(range(9))
    await partition_task.close()


async def test_offsets_of_control_records_are_no_gap() -> None:
    """A fetch batch [from 5, records from 7): offsets 5 and 6 are transaction markers."""
    work = Work()
    partition_task = await task_of(work, Source())
    partition_task.offer(fetch_batch(0, 5))
    partition_task.offer(fetch_batch(7, 9, from_offset=5))
    await soon(lambda: len(work.taken) == 7)
    assert partition_task.gaps == 0
    await partition_task.close()


async def test_a_full_task_pauses_its_partition_and_resumes_it_when_drained() -> None:
    work, source = Work(), Source()
    partition_task = await task_of(work, source)
    work.gate.clear()
    for start in range(8):
        partition_task.offer(fetch_batch(start, start + 1))
    await soon(lambda: source.paused)
    work.gate.set()
    await soon(lambda: not source.paused)
    assert work.taken == list(range(8))
    await partition_task.close()


async def test_small_batches_that_arrive_together_share_a_transaction() -> None:
    """[0,1) [1,2) ... become one unit of work; a gap or a tick between them is kept."""
    work, sizes = Work(), []
    process = work.process

    async def counting(records: Sequence[Any]) -> int:
        sizes.append(len(records))
        return await process(records)

    work.process = counting  # type: ignore[method-assign]
    partition_task = await task_of(work, Source())
    work.gate.clear()
    partition_task.punctuate()
    for start in range(6):
        partition_task.offer(fetch_batch(start, start + 1))
    work.gate.set()
    await soon(lambda: work.taken == list(range(6)))
    assert sizes == [6]
    await partition_task.close()


async def test_ticks_are_coalesced() -> None:
    work = Work()
    partition_task = await task_of(work, Source())
    work.gate.clear()
    for _ in range(10):
        partition_task.punctuate()
    work.gate.set()
    await soon(lambda: work.ticks == 1)
    partition_task.punctuate()
    await soon(lambda: work.ticks == 2)
    await partition_task.close()


async def test_a_connection_error_reopens_the_work_and_repeats_the_batch() -> None:
    work, source = Work(), Source()
    work.failures = [KafkaConnectionError(), KafkaConnectionError()]
    partition_task = await task_of(work, source)
    partition_task.offer(fetch_batch(0, 5))
    await soon(lambda: work.taken == [0, 1, 2, 3, 4])
    assert work.opened == 3
    await partition_task.close()


@pytest.mark.parametrize("error", [ProducerFenced(), ValueError("a bug")])
async def test_a_fenced_producer_and_a_bug_end_the_process(error: BaseException) -> None:
    work, death = Work(), FatalErrors()
    work.failures = [error]
    partition_task = await task_of(work, Source(), death)
    partition_task.offer(fetch_batch(0, 5))
    await soon(lambda: death.errors == [error])
    await partition_task.close()


async def test_an_unexpected_cancellation_ends_the_process() -> None:
    """A library that raises its own CancelledError must not leave a partition without an owner unnoticed."""
    work, death = Work(), FatalErrors()
    work.failures = [asyncio.CancelledError()]
    partition_task = await task_of(work, Source(), death)
    partition_task.offer(fetch_batch(0, 5))
    await soon(lambda: len(death.errors) == 1)
    await partition_task.close()


async def test_too_many_reopenings_end_the_process() -> None:
    work, death = Work(), FatalErrors()
    work.failures = [KafkaConnectionError() for _ in range(9)]
    partition_task = await task_of(work, Source(), death)
    partition_task.offer(fetch_batch(0, 5))
    await soon(lambda: len(death.errors) == 1)
    assert work.opened == 6
    await partition_task.close()


class AwayWork(Work):
    """Work that cannot be opened for a while."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.errors = [error] * times

    async def open(self) -> int:
        await super().open()
        if self.errors:
            raise self.errors.pop()
        return 0


@pytest.mark.parametrize(("error", "opened", "deaths"), [(KafkaConnectionError(), 31, 0), (Unavailable("slow"), 6, 1)])
async def test_an_unavailable_kafka_is_waited_for_while_a_task_opens(
    error: Exception, opened: int, deaths: int
) -> None:
    """A new process would not reach Kafka either. If Kafka answers and errors continue, a new process may repair that."""
    work, source, death = AwayWork(error, times=30), Source(), FatalErrors()

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    with capture_logs() as said:
        partition_task = PartitionTask(PLACE, work, source, death, sleep)
        await soon(lambda: partition_task.expected == 0 or death.errors)
    assert (work.opened, len(death.errors)) == (opened, deaths)
    assert len([line for line in said if line["event"] == "partition_task_open_failed"]) <= 6 + 30 // 8
    await partition_task.close()


async def test_closing_waits_only_for_a_running_transaction() -> None:
    work = Work()
    partition_task = await task_of(work, Source())
    work.gate.clear()
    partition_task.offer(fetch_batch(0, 5))
    await asyncio.sleep(0)
    await partition_task.close()
    assert (work.taken, work.closed) == ([], 2)

    work = Work()
    partition_task = await task_of(work, Source())
    work.gate.clear()
    work.busy = True
    partition_task.offer(fetch_batch(0, 5))
    closing = asyncio.ensure_future(partition_task.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    work.busy = False
    work.gate.set()
    await closing
    assert partition_task.expected in (0, 5)


@pytest.mark.parametrize(
    "error", [ProducerFenced(), KafkaConnectionError(), Unavailable("stale_projector"), ValueError("a bug")]
)
async def test_while_it_closes_only_a_bug_ends_the_process(error: BaseException) -> None:
    """A process that wakes after a pause closes its partition tasks, and finds at that moment that others have taken
    them over.
    """
    work, death = Work(), FatalErrors()
    partition_task = await task_of(work, Source(), death)
    work.gate.clear()
    work.busy, work.failures = True, [error]
    partition_task.offer(fetch_batch(0, 5))
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(partition_task.close())
    await asyncio.sleep(0.01)
    work.gate.set()
    await closing
    assert death.errors == ([error] if isinstance(error, ValueError) else [])


class LosingWork(Work):
    """A cancellation comes out of its library as the error of a connection, as `asyncio.wait_for` of Python 3.11 returns it."""

    async def open(self) -> int:
        await super().open()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise KafkaConnectionError from None
        return 0


async def test_a_task_that_opens_ends_although_a_library_takes_its_cancellation_for_an_error() -> None:
    """An earlier version opened again and again: the rebalance waited for it without an end."""
    work, death = LosingWork(), FatalErrors()
    partition_task = PartitionTask(PLACE, work, Source(), death)
    await soon(lambda: work.opened == 1)
    async with within(20):
        await partition_task.close()
    assert (work.opened, death.errors) == (1, [])
