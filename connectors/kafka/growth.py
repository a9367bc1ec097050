"""Adds partitions to topics, and shows which consumer groups have members. The functions block, so async callers use a
thread.
"""

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import FIRST_ANSWER_S, LIMIT_S
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.errors import topic_missing
from connectors.kafka.topic_rules import other_count
from connectors.kafka.topic_scan import translated_errors
from schemas.errors import TopicProblem, Unavailable
from schemas.topics import TopicNames

#: Time limit of a request about groups, seconds. A new cluster creates its coordinator at the first such request, which
#: is slow on a busy machine.
_COORDINATOR_S = 60.0
_NO_COORDINATOR_YET = {
    KafkaError._TIMED_OUT,  # noqa: SLF001  # librdkafka's own errors are spelt so
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_AGAIN_S = 0.1
_EMPTY = {ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}


def partition_counts(kafka: KafkaConnection, names: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of each topic.

    Raises:
        TopicProblem: `topic_missing`. Unavailable: the broker does not answer.
    """
    with translated_errors("list topics"):
        topics = AdminClient(librdkafka_config(kafka)).list_topics(timeout=FIRST_ANSWER_S).topics
    for name in names:
        if name not in topics:
            raise topic_missing(name)
    return {name: len(topics[name].partitions) for name in names}


def check_ledger_topics(kafka: KafkaConnection, topics: TopicNames, partitions: int) -> None:
    """Check that the topics of the ledgers exist, and that the raw topic has this number of partitions, each with its ledger.
    With more of them a part of the ledgers would not be read. With fewer, a client waits for the missing ones, as if Kafka did not
    answer. The changelog may have more: `topics expand` that was refused or interrupted has grown it first.

    Raises:
        TopicProblem: `topic_missing`, `partitions_changed`. Unavailable: the broker does not answer.
    """
    counts = partition_counts(kafka, (topics.raw, topics.changelog))
    for name, fits in (
        (topics.raw, counts[topics.raw] == partitions),
        (topics.changelog, counts[topics.changelog] >= partitions),
    ):
        if not fits:
            raise TopicProblem("partitions_changed", other_count(name, counts[name], partitions))


def grow(kafka: KafkaConnection, counts: Mapping[str, int]) -> list[str]:
    """Grow topics to their `counts`, and wait until the broker lists leaders for the new partitions; return the topics
    that grew.

    A topic that has enough partitions is not changed, so a repeat completes an interrupted run.

    Raises:
        TopicProblem: `topic_missing`, `topic_refused`. Unavailable: the broker does not answer; repeating is safe.
    """
    there = partition_counts(kafka, counts)
    smaller = {name: count for name, count in counts.items() if there[name] < count}
    if not smaller:
        return []
    admin = AdminClient(librdkafka_config(kafka))
    futures = admin.create_partitions(
        [NewPartitions(name, count) for name, count in smaller.items()], request_timeout=LIMIT_S
    )
    for name, future in futures.items():
        with translated_errors(name):
            future.result()
    deadline = time.monotonic() + LIMIT_S
    while not _listed(admin, smaller):
        if time.monotonic() > deadline:
            raise Unavailable("kafka_unavailable", "new partitions do not appear in the cluster's metadata")
        time.sleep(0.05)
    return sorted(smaller)


def groups_named(kafka: KafkaConnection, beginning: str, ending: str) -> list[str]:
    """Return the consumer groups of the cluster whose names begin and end so.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = AdminClient(librdkafka_config(kafka))
    with translated_errors("list groups"):
        groups = admin.list_consumer_groups(request_timeout=LIMIT_S).result().valid
    names = (group.group_id for group in groups)
    return sorted(name for name in names if name.startswith(beginning) and name.endswith(ending))


def groups_with_members(kafka: KafkaConnection, groups: Iterable[str]) -> list[str]:
    """Return the consumer groups that have members. A killed member counts until its session times out.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = AdminClient(librdkafka_config(kafka))
    return sorted(name for name in groups if _has_members(admin, name))


def _has_members(admin: AdminClient, name: str) -> bool:
    deadline = time.monotonic() + _COORDINATOR_S
    while True:
        try:
            group = admin.describe_consumer_groups([name], request_timeout=LIMIT_S)[name].result()
        except KafkaException as error:
            if error.args[0].code() in _NO_COORDINATOR_YET and time.monotonic() < deadline:
                time.sleep(_AGAIN_S)
                continue
            with translated_errors(name):
                raise
        return bool(group.state not in _EMPTY or group.members)


def _listed(admin: AdminClient, counts: Mapping[str, int]) -> bool:
    with translated_errors("list topics"):
        topics = admin.list_topics(timeout=LIMIT_S).topics
    return all(
        sum(partition.leader >= 0 for partition in topics[name].partitions.values()) >= count
        for name, count in counts.items()
    )
