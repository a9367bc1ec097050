"""Every client writes a key to the same partition: murmur2 everywhere (docs/adr/0002).

LiteLLM's calls come from librdkafka, mappings from aiokafka, repairs from Java's console tools; a table
and a ledger meet only if all of them agree.
"""

import subprocess

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.eventually import PATIENCE, eventually
from tests.support.kafka import Kafka
from tests.support.kafka.maven import java_command, short_lived

PARTITIONS = 12
KEYS = [
    *(f"cust_{number}" for number in range(160)),
    *(
        "Ω-Kunde",
        "顧客-7",
        "عميل",
        "клиент 3",
        "👩‍💻",
        "é",
        "e\u0301",
        "ß",
        "a b",
        "a|b",
        "a,b",
        "'q'",
        '"q"',
        "unattributed:",
    ),
    *("x" * length for length in range(1, 21)),
    *("ü" * length for length in (1, 2, 3, 63, 127)),
    "sha256:" + "0f" * 32,
]


def _topic(kafka: Kafka, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
    eventually(lambda: name in admin.list_topics(timeout=10 * PATIENCE).topics)
    return name


def _homes(kafka: Kafka, topic: str) -> dict[str, int]:
    """The partition of every key in `topic`."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "unused", "enable.auto.commit": False})
    try:
        partitions = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        ends = [consumer.get_watermark_offsets(partition, timeout=10 * PATIENCE)[1] for partition in partitions]
        assert sum(ends) == len(KEYS)
        consumer.assign(partitions)
        return {message.key().decode(): message.partition() for message in consumer.consume(len(KEYS), timeout=20)}
    finally:
        consumer.close()


async def test_a_key_has_one_partition_for_every_client(kafka: Kafka, topic_prefix: str) -> None:
    from_librdkafka = _topic(kafka, topic_prefix + "librdkafka")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    for key in KEYS:
        producer.produce(from_librdkafka, b"", key=key)
    assert producer.flush(20 * PATIENCE) == 0

    from_aiokafka = _topic(kafka, topic_prefix + "aiokafka")
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as writer:
        for key in KEYS:
            await writer.send(from_aiokafka, b"", key=key.encode())

    from_java = _topic(kafka, topic_prefix + "java")
    _write_with_java(kafka, from_java)

    homes = _homes(kafka, from_librdkafka)
    assert homes.keys() == set(KEYS)
    assert set(homes.values()) == set(range(PARTITIONS))
    assert _homes(kafka, from_aiokafka) == homes
    assert _homes(kafka, from_java) == homes


def _write_with_java(kafka: Kafka, topic: str) -> None:
    """Kafka's own console producer, one `key<TAB>value` a line."""
    tool = "org.apache.kafka.tools.ConsoleProducer"
    command = java_command(tool, "--bootstrap-server", kafka.bootstrap, options=short_lived())
    separated = ["--topic", topic, "--property", "parse.key=true", "--property", "key.separator=\t"]
    lines = "".join(f"{key}\tv\n" for key in KEYS)
    done = subprocess.run(
        [*command, *separated],
        input=lines.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")
