"""A transaction that fails fails once: nobody is told again of each record that was in it."""

import asyncio
import gc
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from streams import transactions


class _Batch:
    """Holds one record."""

    def __init__(self) -> None:
        self.full = False

    def append(self, **_record: Any) -> object:
        if self.full:
            return None
        self.full = True
        return self

    def close(self) -> None: ...


class _Fenced:
    """A producer that lost its id while three batches were on their way."""

    create_batch = _Batch

    async def partitions_for(self, _topic: str) -> list[int]:
        return [0]

    async def begin_transaction(self) -> None: ...

    async def send_batch(self, _batch: _Batch, _topic: str, *, partition: int) -> "asyncio.Future[None]":
        assert partition == 0
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, ProducerFenced())
        return future


async def test_the_batches_of_a_transaction_that_failed_are_not_told_of_one_by_one(
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
