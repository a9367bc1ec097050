"""A failed transaction is reported once, not once for each of its records."""

import asyncio
import gc
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerIdMapping, KafkaError, ProducerFenced

from streams.runtime import transactions
from streams.runtime.partition_task import may_pass


class _Batch:
    """Contains one record."""

    def __init__(self) -> None:
        self.full = False

    def append(self, **_record: Any) -> object:
        if self.full:
            return None
        self.full = True
        return self

    def close(self) -> None: ...


class _Fenced:
    """A producer that was fenced while three batches were being sent."""

    create_batch = _Batch

    async def partitions_for(self, _topic: str) -> list[int]:
        return [0]

    async def begin_transaction(self) -> None: ...

    async def send_batch(self, _batch: _Batch, _topic: str, *, partition: int) -> "asyncio.Future[None]":
        assert partition == 0
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, ProducerFenced())
        return future


async def test_the_batches_of_a_failed_transaction_are_not_logged_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "AIOKafkaProducer", lambda **_options: _Fenced())
    writer = transactions.TransactionalWriter({}, "id")
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    writes = [transactions.Write("topic", 0, None, b"%d" % number) for number in range(3)]
    with pytest.raises(ProducerFenced):
        await writer.commit(writes, TopicPartition("source", 0), 1, "group")
    await asyncio.sleep(0)
    gc.collect()
    assert said == []


class _Forgotten(_Fenced):
    """A producer that was idle for a week: the broker's answer ends aiokafka's sender."""

    async def send_batch(self, _batch: _Batch, _topic: str, *, partition: int) -> "asyncio.Future[None]":
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        error = KafkaError("Unexpected error during batch delivery")
        error.__cause__ = InvalidProducerIdMapping()
        failed.set_exception(error)
        return failed


async def test_a_producer_whose_id_kafka_has_expired_is_opened_again_and_ends_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`transactional.id.expiration.ms`: seven days; a retry topic may be idle for longer."""
    monkeypatch.setattr(transactions, "AIOKafkaProducer", lambda **_: _Forgotten())
    writer = transactions.TransactionalWriter({}, "id")
    with pytest.raises(transactions.ProducerExpired) as expired:
        await writer.commit([transactions.Write("t", 0, b"k", b"v")], TopicPartition("t", 0), None, "g")
    assert may_pass(expired.value)
    monkeypatch.setattr(transactions, "AIOKafkaProducer", lambda **_: _Fenced())
    fenced = transactions.TransactionalWriter({}, "id")
    with pytest.raises(ProducerFenced) as taken:
        await fenced.commit([transactions.Write("t", 0, b"k", b"v")], TopicPartition("t", 0), None, "g")
    assert not may_pass(taken.value)


class _Silent(_Fenced):
    """A producer whose start and commit never end, as if the broker did not complete an earlier transaction."""

    async def start(self) -> None:
        await asyncio.Event().wait()

    begin_transaction = start


async def test_a_start_or_a_commit_that_never_ends_is_an_error_that_reopens_the_partition_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "AIOKafkaProducer", lambda **_: _Silent())
    monkeypatch.setattr(transactions, "STALLED_S", 0.01)
    writer = transactions.TransactionalWriter({}, "id")
    with pytest.raises(transactions.KafkaStalled) as starting:
        await writer.start()
    with pytest.raises(transactions.KafkaStalled) as committing:
        await writer.commit([], TopicPartition("t", 0), 1, "g")
    assert not writer.busy
    assert may_pass(starting.value) and may_pass(committing.value)


async def test_an_error_of_the_commit_itself_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    class Times(_Fenced):
        async def begin_transaction(self) -> None:
            raise TimeoutError("its own")

    monkeypatch.setattr(transactions, "AIOKafkaProducer", lambda **_: Times())
    with pytest.raises(TimeoutError, match="its own"):
        await transactions.TransactionalWriter({}, "id").commit([], TopicPartition("t", 0), 1, "g")


def test_the_stall_limit_is_longer_than_the_brokers_transaction_timeout() -> None:
    """Kafka looks for transactions that have timed out every 10 s (`transaction.abort.timed.out...interval.ms`)."""
    assert transactions.STALLED_S * 1000 > transactions.TRANSACTION_TIMEOUT_MS + 10_000
