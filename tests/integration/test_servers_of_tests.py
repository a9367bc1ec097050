"""The real servers that other tests use: they start, they survive a kill, and they end with the test run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.eventually import PATIENCE
from tests.support.kafka import ConfiguredKafka, Kafka, MavenKafka
from tests.support.kafka.shared import BrokerForWorkers, shared_kafka
from tests.support.postgres import LocalPostgres, Postgres
from tests.support.server_folder import server_folder


def _create(kafka: Kafka, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for created in admin.create_topics([NewTopic(topic, 1)]).values():
        created.result()


def _write(kafka: Kafka, topic: str, value: bytes) -> None:
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", "linger.ms": 0})
    producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(30 * PATIENCE) == 0
    assert not failures


def _read(kafka: Kafka, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "unused", "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10 * PATIENCE)
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(end, timeout=10)]
    finally:
        consumer.close()


def test_acknowledged_records_can_be_read(kafka: Kafka, topic_prefix: str) -> None:
    _create(kafka, topic_prefix + "smoke")
    _write(kafka, topic_prefix + "smoke", b"one")
    assert _read(kafka, topic_prefix + "smoke") == [b"one"]


def test_a_killed_broker_comes_back_at_its_address_with_its_records() -> None:
    broker = MavenKafka()
    try:
        _create(broker, "kept")
        _write(broker, "kept", b"before the kill")
        broker.kill()
        broker.restart()
        _write(broker, "kept", b"after it")
        assert _read(broker, "kept") == [b"before the kill", b"after it"]
    finally:
        broker.stop()
    assert not broker.folder.exists()


def test_workers_that_need_a_broker_get_the_same_one_or_the_reason_why_there_is_none() -> None:
    starts: list[int] = []

    def start() -> Kafka:
        starts.append(1)
        if len(starts) == 1:
            raise RuntimeError("no Java")
        return ConfiguredKafka("127.0.0.1:1")

    for_all = BrokerForWorkers(start)
    with pytest.raises(RuntimeError, match="no Java"):
        shared_kafka(for_all.address)
    one, other = shared_kafka(for_all.address), shared_kafka(for_all.address)
    assert one == other
    assert (one.bootstrap, len(starts)) == ("127.0.0.1:1", 2)
    with pytest.raises(RuntimeError, match="not ours to kill"):
        one.kill()
    for_all.stop()


async def test_a_crashed_postgres_comes_back_with_its_rows() -> None:
    server = LocalPostgres()
    try:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS row")
        server.kill()
        server.restart()
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT row FROM kept") == 1
        await connection.close()
    finally:
        server.stop()
    assert not server.folder.exists()


async def test_postgres_answers_at_its_url(postgres: Postgres, postgres_url: str) -> None:
    assert postgres_url == postgres.url
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


@pytest.mark.parametrize(
    ("environ", "room", "in_memory"),
    [({"PYTEST_VERSION": "9"}, 1, True), ({"PYTEST_VERSION": "9"}, 1 << 60, False), ({}, 1, False)],
)
def test_a_tests_server_has_its_data_in_memory_if_there_is_room(
    environ: dict[str, str], room: int, in_memory: bool, tmp_path: Path
) -> None:
    folder = server_folder("nothing", environ, tmp_path, room)
    try:
        assert (folder.parent == tmp_path) is in_memory
    finally:
        folder.rmdir()


@pytest.mark.parametrize("server", ["kafka.maven.MavenKafka", "postgres.LocalPostgres"])
def test_a_server_dies_with_the_process_that_started_it(server: str) -> None:
    """A test run ended by SIGKILL must not leave brokers behind."""
    module, _, name = server.rpartition(".")
    script = f"""
import sys, os, signal
from tests.support.{module} import {name} as Server
server = Server()
print(server.port, server.folder, server._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    _, folder, pid = ended.stdout.split()
    deadline = time.monotonic() + 10 * PATIENCE
    while any(Path(left).exists() for left in (folder, f"/proc/{pid}")):
        assert time.monotonic() < deadline, "the server or its folder outlived its parent"
        time.sleep(0.05)
