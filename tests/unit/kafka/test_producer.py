"""The state that the producer reports, without a broker."""

import asyncio
import gc
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from schemas.errors import Unavailable
from tests.support.ports import free_port


def _producer() -> KafkaProducer:
    return KafkaProducer(producer_config(f"127.0.0.1:{free_port()}", answer_within_s=30))


async def test_after_a_fatal_error_nothing_is_sent_and_the_process_must_be_replaced() -> None:
    """librdkafka's fatal errors (KIP-360) are permanent: an idempotent producer cannot continue without a gap."""
    producer = _producer()
    assert producer.healthy()
    producer._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert producer.healthy()
    producer._on_error(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "lost its place", True))
    assert not producer.healthy()
    with pytest.raises(Unavailable) as caught:
        await producer.send_all([("topic", "key", b"value", 0)])
    assert caught.value.reason == "kafka_fatal"
    await producer.close(0)


async def test_a_closed_producer_refuses_records_and_may_be_closed_twice() -> None:
    producer = _producer()
    closing = asyncio.create_task(producer.close(0))
    await asyncio.sleep(0)
    assert not producer.healthy()
    assert await closing == 0
    assert await producer.close(0) == 0
    with pytest.raises(Unavailable) as caught:
        await producer.send_all([("topic", "key", b"value", 0)])
    assert caught.value.reason == "kafka_closed"


async def test_sending_an_empty_list_is_done_at_once() -> None:
    producer = _producer()
    assert await producer.send_all([]) == {}
    await producer.close(0)


def test_a_record_fails_before_its_sender_times_out() -> None:
    config = producer_config("kafka:9092", answer_within_s=30)
    assert config["message.timeout.ms"] == 20_000
    assert (config["acks"], config["enable.idempotence"], config["partitioner"]) == ("all", True, "murmur2_random")
    assert "transactional.id" not in config


async def test_the_acknowledgements_of_a_refused_call_are_no_unseen_errors(caplog: pytest.LogCaptureFixture) -> None:
    """While Kafka is away the queue is full. An earlier version logged a traceback for each refused call later."""
    producer, acked = _producer(), []

    def produce(*_: object, on_delivery: Callable[..., None], **__: object) -> None:
        if acked:
            raise BufferError
        acked.append(on_delivery)

    producer._producer = SimpleNamespace(produce=produce, poll=lambda _: time.sleep(0.01), flush=lambda _: 0)
    with pytest.raises(Unavailable, match="kafka_queue_full"):
        await producer.send_all([("topic", "key", b"1", 0), ("topic", "key", b"2", 0)])
    acked.pop()(KafkaError(KafkaError._MSG_TIMED_OUT), SimpleNamespace(value=lambda: b"1"))
    await producer.close(0)
    gc.collect()
    assert "never retrieved" not in caplog.text
