"""What remembered identities cost: the changelog that a day of calls leaves, read back by a process that takes the ledgers over.

The changelog is written as steps write it: one transaction and one chunk of identities for each partition and step. Positions and
windows of earlier steps are left out, as Kafka's cleaner leaves them out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from typing import Any

import msgspec
from confluent_kafka import Producer

from bench.capacity.broker import WeighedKafka
from bench.contest import environment
from bench.ground import settings_of
from connectors.config.connections import kafka_connection, topic_layout
from connectors.kafka.admin import create_topics, topic_ids
from schemas.ledger import LEDGER_VERSION, POSITION_KEY, SEEN_PREFIX, Counters, Position, Sum
from schemas.topics import TopicNames
from streams.core.metering.identity import IDENTITY_BYTES
from streams.state.changelog import identity_key

#: The dedupe retention that ships, hours.
HOURS = 24
_LIMIT_S, _ANSWER_S = 550, 60


def measured(broker: WeighedKafka, identities: int, partitions: int, a_step: int) -> dict[str, Any]:
    """One row. Args: a_step: identities that one step of a partition adds."""
    prefix = f"capacity-{uuid.uuid4().hex[:8]}."
    settings = settings_of(broker.bootstrap, prefix, KAFKA_PARTITIONS=str(partitions))
    topics, kafka = TopicNames.with_prefix(prefix), kafka_connection(settings)
    create_topics(kafka, topic_layout(settings))
    topic_id = topic_ids(kafka, [topics.raw])[topics.raw]
    _fill(broker.bootstrap, topics.changelog, topic_id, identities, partitions, a_step, settings.deployment_name)
    size = broker.bytes_of(topics.changelog)
    restored = _restored(broker.bootstrap, prefix, partitions)
    if restored["identities"] != identities:
        raise RuntimeError(f"{restored['identities']} of {identities} identities were restored")
    return {
        "identities": identities,
        "partitions": partitions,
        "a_step": a_step,
        "changelog_mb": round(size / 1e6, 2),
        "restore_wall_s": round(restored["wall_s"], 2),
        "restore_cpu_s": round(restored["cpu_s"], 2),
        "pss_mb": round(restored["pss"] / 1e6, 1),
        "peak_mb": round(restored["peak"] / 1e6, 1),
        "table_mb": round(restored["table"] / 1e6, 1),
    }


def _fill(
    bootstrap: str, topic: str, topic_id: str, identities: int, partitions: int, a_step: int, deployment: str
) -> None:
    """Raises: RuntimeError: Kafka did not take all."""
    name = f"filler-{uuid.uuid4().hex}"
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "linger.ms": 1})
    producer.init_transactions(_ANSWER_S)
    each, now = identities // partitions, int(time.time() // 3600)
    for first in range(0, each, a_step):
        count = min(a_step, each - first)
        key = identity_key(SEEN_PREFIX, now - HOURS + 1 + HOURS * first // each, first)
        producer.begin_transaction()
        for partition in range(partitions):
            producer.produce(topic, os.urandom(count * IDENTITY_BYTES), key, partition)
        producer.commit_transaction(_ANSWER_S)
    counted = Counters(received=Sum(each), folded=Sum(each), sealed=Sum(each))
    own = Position(topic_id=topic_id, partitions=partitions, deployment=deployment, counters=counted, v=LEDGER_VERSION)
    producer.begin_transaction()
    for partition in range(partitions):
        producer.produce(topic, msgspec.msgpack.encode(own), POSITION_KEY, partition)
    producer.commit_transaction(_ANSWER_S)


def _restored(bootstrap: str, prefix: str, partitions: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="meterbridge-capacity-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "bench.capacity.restore_job", bootstrap, prefix, str(partitions)],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the restore failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
