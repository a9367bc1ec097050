"""How long a worker needs to take over ledgers, compared with a bare consumer of the same changelog."""

import time

from confluent_kafka import Consumer, TopicPartition

from bench.contest import Measured, interleaved, run
from bench.ground import PARTITIONS, Ground
from bench.records import stored
from bench.report import Row, rows_of
from schemas.topics import TopicNames
from schemas.wire import FLAT


def ledgers(ground: Ground, records: int, repeats: int) -> list[Row]:
    """Fold three times `records` calls, then read their ledgers back; the cost per remembered identity.

    A day has millions of identities, so the cost of connecting must not dominate.
    """
    records *= 3
    prefix = ground.corner()
    topics = TopicNames.with_prefix(prefix)
    ground.map_customers(prefix)
    ground.fill(stored(FLAT, records, topics.raw, time.time_ns() // 1000))
    run("bench.ours.meter_job", ground.bootstrap, prefix, prefix, records)
    changelog = _records_of(ground, topics.changelog)

    def bare() -> Measured:
        """The figures of the bare consumer are per record of the changelog; ours are per identity."""
        read = run("bench.peers.bare_job", "changelog", ground.bootstrap, topics.changelog, PARTITIONS)
        return Measured(read.wall * changelog / records, read.cpu * changelog / records)

    contestants = {"ours": lambda: run("bench.ours.recovery_job", ground.bootstrap, prefix), "bare": bare}
    return rows_of("ledger_recovery", "us/identity", interleaved(contestants, repeats))


def _records_of(ground: Ground, topic: str) -> int:
    """Number of committed records in the topic."""
    settings = {"group.id": "count", "enable.auto.commit": False, "enable.partition.eof": True}
    reader = Consumer({"bootstrap.servers": ground.bootstrap, "auto.offset.reset": "earliest", **settings})
    reader.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    count = ended = 0
    while ended < PARTITIONS:
        for message in reader.consume(5000, 0.2):
            ended += message.error() is not None
            count += message.error() is None
    reader.close()
    return count
