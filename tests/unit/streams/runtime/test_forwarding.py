"""Which records a ledger forwards after its topic has grown: those whose key belongs to a partition that was added for
its keys.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from connectors.operations.past_counts import ancestors, grown_from
from schemas.topics import CUSTOMERS, RAW, RECEIPTS, has_right_count
from streams.runtime import forwarding
from streams.runtime.forwarding import Forwarder
from streams.runtime.transactions import partition_of
from tests.support.virtual_time import VirtualLoop

KEYS = st.binary(min_size=1, max_size=40)


@given(KEYS, st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_a_key_is_forwarded_once_from_any_partition_that_a_client_chose(
    key: bytes, first: int, once: int, twice: int
) -> None:
    """Clients know the first number of partitions, the second, or today's."""
    counts = [first, first * once, first * once * twice]
    home = partition_of(key, counts[-1])
    for known in counts:
        placed = partition_of(key, known)
        base = grown_from(counts, placed) or counts[-1]
        assert Forwarder({}, "raw", placed).target(key, base, counts[-1]) == home
        assert placed == home or placed in ancestors(counts, home), "the ledger there was counted in before"


@given(KEYS, st.integers(0, 3))
def test_a_key_placed_here_by_another_partitioner_stays(key: bytes, partition: int) -> None:
    """Only this partition knows which of its calls were counted."""
    target = Forwarder({}, "raw", partition).target(key, 4, 12)
    assert target % 4 == partition
    assert target == (partition_of(key, 12) if partition_of(key, 4) == partition else partition)


def test_a_record_without_a_key_stays() -> None:
    assert [Forwarder({}, "raw", 1).target(key, 2, 4) for key in (None, b"")] == [1, 1]


def test_a_topic_with_its_first_number_of_partitions_fits_every_multiple_of_it() -> None:
    for topic in (CUSTOMERS, RECEIPTS):
        assert [has_right_count(topic, there, 12) for there in (4, 12, 5, 24)] == [True, True, False, False]
    assert [has_right_count(RAW, there, 12) for there in (4, 12)] == [False, True]


class _Away:
    """A producer with records that Kafka does not accept: aiokafka waits until they expire."""

    def __init__(self, **_options: Any) -> None:
        self.closed = asyncio.Event()
        self.client = SimpleNamespace(close=self._close)
        self._txn_manager = SimpleNamespace(wait_for_transaction_end=lambda: None)
        self._message_accumulator = SimpleNamespace(_pending_batches=(), _batches={})

    async def _close(self) -> None:
        self.closed.set()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await asyncio.sleep(40)


def test_a_partition_is_released_soon_while_kafka_does_not_accept_forwarded_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, "AIOKafkaProducer", _Away)

    async def stopped_after_s() -> float:
        forwarder = Forwarder({}, "raw", 0)
        producer: Any = await forwarder._started()
        await forwarder.stop()
        assert producer.closed.is_set()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(stopped_after_s()) < 5


async def test_a_producer_that_does_not_start_is_closed_and_the_next_attempt_makes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an earlier version each attempt left its connections open."""
    made: list[Any] = []

    class Refused(_Away):
        async def start(self) -> None:
            made.append(self)
            raise KafkaConnectionError("refused")

        async def stop(self) -> None:
            self.closed.set()

    monkeypatch.setattr(forwarding, "AIOKafkaProducer", Refused)
    forwarder = Forwarder({}, "raw", 0)
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await forwarder.send([])
    assert [producer.closed.is_set() for producer in made] == [True, True]
