"""Grows topics, and tells which consumer groups have members. The functions block, so async callers use a thread."""

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient, NewPartitions

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import LIMIT_S
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.topic_scan import translated_errors
from schemas.errors import TopicProblem, Unavailable

_EMPTY = {ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}


def partition_counts(kafka: KafkaConnection, names: Iterable[str]) -> dict[str, int]:
    """The number of partitions of each topic.

    Raises:
        TopicProblem: `topic_missing`. Unavailable: the broker does not answer.
    """
    with translated_errors("list topics"):
        topics = AdminClient(librdkafka_config(kafka)).list_topics(timeout=LIMIT_S).topics
    for name in names:
        if name not in topics:
            raise TopicProblem("topic_missing", name)
    return {name: len(topics[name].partitions) for name in names}


def grow(kafka: KafkaConnection, counts: Mapping[str, int], limit_s: float = LIMIT_S) -> list[str]:
    """Grow topics to their `counts` and wait until the broker lists the new partitions with leaders; those that grew.

    A topic that has as many partitions already is left alone, so a repeat finishes what was cut off.

    Raises:
        TopicProblem: `topic_missing`, `topic_refused`. Unavailable: the broker does not answer; repeating is safe.
    """
    there = partition_counts(kafka, counts)
    smaller = {name: count for name, count in counts.items() if there[name] < count}
    if not smaller:
        return []
    admin = AdminClient(librdkafka_config(kafka))
    futures = admin.create_partitions(
        [NewPartitions(name, count) for name, count in smaller.items()], request_timeout=limit_s
    )
    for name, future in futures.items():
        with translated_errors(name):
            future.result()
    deadline = time.monotonic() + limit_s
    while not _listed(admin, smaller, limit_s):
        if time.monotonic() > deadline:
            raise Unavailable("kafka_unavailable", "new partitions do not appear in the cluster's metadata")
        time.sleep(0.05)
    return sorted(smaller)


def groups_with_members(kafka: KafkaConnection, groups: Iterable[str]) -> list[str]:
    """Those of the consumer groups that have members. A member that was killed counts until its session ends.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = AdminClient(librdkafka_config(kafka))
    found = []
    for name, future in admin.describe_consumer_groups(list(groups), request_timeout=LIMIT_S).items():
        with translated_errors(name):
            group = future.result()
        if group.state not in _EMPTY or group.members:
            found.append(name)
    return sorted(found)


def _listed(admin: AdminClient, counts: Mapping[str, int], limit_s: float) -> bool:
    with translated_errors("list topics"):
        topics = admin.list_topics(timeout=limit_s).topics
    return all(
        sum(partition.leader >= 0 for partition in topics[name].partitions.values()) >= count
        for name, count in counts.items()
    )
