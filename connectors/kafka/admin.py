"""Creates and checks the topics of the catalogue. Blocking: async callers use a thread.

A worker checks before it starts: on a missing topic Faust would spin for ever and ignore SIGTERM.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, NewTopic, ResourceType

from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.topic_rules import Complaint
from connectors.kafka.topic_rules import complaints as complaints_of
from schemas.errors import TopicProblem, Unavailable
from schemas.topics import CATALOGUE, Topic, partition_count, topic_config

log = structlog.get_logger(__name__)

#: How long the broker may take for one answer, seconds.
LIMIT_S = 20.0
#: How the cluster id of librdkafka's in-process broker begins (connectors/demo/broker.py). It has no controller:
#: it answers neither for settings nor for topic ids.
_EMBEDDED = "mockCluster"


@dataclass(frozen=True, slots=True)
class TopicsCreated:
    """What `create_topics` did; names with their prefix, in the catalogue's order."""

    created: tuple[str, ...]
    existed: tuple[str, ...]


def create_topics(kafka: KafkaConnection, layout: TopicLayout, limit_s: float = LIMIT_S) -> TopicsCreated:
    """Create what is missing of the catalogue; what exists is left as it is, so twice does nothing.

    Returns when the broker lists every topic.

    Raises:
        TopicProblem: the broker refuses one, e.g. for more copies than there are brokers.
        Unavailable: the broker does not answer; repeating is safe.
    """
    admin = _admin(kafka)
    wanted = {layout.prefix + topic.name: topic for topic in CATALOGUE}
    # What is there is not asked for again: the account may be allowed to create nothing.
    found = _partitions(_metadata(admin, limit_s)).keys()
    created = _create(admin, {name: topic for name, topic in wanted.items() if name not in found}, layout, limit_s)
    deadline = time.monotonic() + limit_s
    while wanted.keys() - _partitions(_metadata(admin, limit_s)).keys():
        if time.monotonic() > deadline:
            raise Unavailable("kafka_unavailable", "created topics do not appear in the cluster's metadata")
        time.sleep(0.05)
    return TopicsCreated(created, tuple(name for name in wanted if name not in created))


def check_topics(
    kafka: KafkaConnection, layout: TopicLayout, limit_s: float = LIMIT_S, *, to_start: bool = False
) -> list[str]:
    """What is wrong with the topics, a sentence each; empty when all is well.

    Args:
        to_start: only what no process can start with; the rest is logged.

    Raises:
        Unavailable: the broker does not answer.
    """
    sentences = []
    for wrong in wrong_topics(kafka, layout, limit_s):
        if to_start and not wrong.stops:
            log.warning("topic_setting", setting=wrong.setting, told=wrong.sentence)
        else:
            sentences.append(wrong.sentence)
    return sentences


def wrong_topics(kafka: KafkaConnection, layout: TopicLayout, limit_s: float = LIMIT_S) -> list[Complaint]:
    """What differs from the catalogue.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = _admin(kafka)
    cluster = _metadata(admin, limit_s)
    found = _partitions(cluster)
    complaints = []
    present = []
    for topic in CATALOGUE:
        name, expected = layout.prefix + topic.name, partition_count(topic, layout.partitions)
        if name not in found:
            sentence = f"Topic {name} is missing: run `meterbridge topics create`."
            complaints.append(Complaint("missing", sentence, stops=True))
            continue
        present.append(topic)
        if found[name] != expected:
            sentence = (
                f"Topic {name} has {found[name]} partitions where {expected} are expected: "
                "counts are fixed for life, set KAFKA_PARTITIONS to what the topics were created with."
            )
            complaints.append(Complaint("partitions", sentence, stops=True))
    if _embedded(cluster):
        return complaints
    return complaints + _wrong_settings(admin, cluster, present, layout, limit_s)


def topic_ids(kafka: KafkaConnection, names: Iterable[str], limit_s: float = LIMIT_S) -> dict[str, str]:
    """Kafka's ids of topics (KIP-516), by full name: a topic that is deleted and made again has another id.

    The topics of the embedded broker live and die with it, so there its own id is theirs.

    Raises:
        TopicProblem: `topic_missing`.
        Unavailable: the broker does not answer.
    """
    admin = _admin(kafka)
    if _embedded(cluster := _metadata(admin, limit_s)):
        return dict.fromkeys(names, str(cluster.cluster_id))
    asked = admin.describe_topics(TopicCollection(list(names)), request_timeout=limit_s)
    ids = {}
    for name, future in asked.items():
        with _kafka_errors(name):
            # Kafka writes ids in URL-safe base64, librdkafka in the other: they become part of Lago's ids.
            ids[name] = str(future.result().topic_id).translate(_URL_SAFE).rstrip("=")
    return ids


_URL_SAFE = str.maketrans("+/", "-_")


def _admin(kafka: KafkaConnection) -> AdminClient:
    return AdminClient(librdkafka_config(kafka))


def _create(admin: AdminClient, missing: dict[str, Topic], layout: TopicLayout, limit_s: float) -> tuple[str, ...]:
    copies = layout.replication_factor
    topics = [
        NewTopic(name, partition_count(topic, layout.partitions), copies, config=topic_config(topic, copies))
        for name, topic in missing.items()
    ]
    asked = admin.create_topics(topics, request_timeout=limit_s) if topics else {}
    created = []
    for name, future in asked.items():
        with _kafka_errors(name):
            try:
                future.result()
            except KafkaException as failed:
                if failed.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster
                    raise
            else:
                created.append(name)
    return tuple(created)


def _metadata(admin: AdminClient, limit_s: float) -> ClusterMetadata:
    try:
        with _kafka_errors("list topics"):
            return admin.list_topics(timeout=limit_s)
    finally:
        admin.poll(0)  # lets librdkafka log why: a refused password or certificate is no error of its own here


def _partitions(cluster: ClusterMetadata) -> dict[str, int]:
    return {name: len(topic.partitions) for name, topic in cluster.topics.items()}


def _embedded(cluster: ClusterMetadata) -> bool:
    return str(cluster.cluster_id).startswith(_EMBEDDED)


def _wrong_settings(
    admin: AdminClient, cluster: ClusterMetadata, topics: list[Topic], layout: TopicLayout, limit_s: float
) -> list[Complaint]:
    """What differs from the catalogue; brokers before 3.6 lack some settings."""
    asked = {layout.prefix + topic.name: topic for topic in topics}
    if not asked:
        return []
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in asked]
    answers = admin.describe_configs(resources, request_timeout=limit_s)
    found: list[Complaint] = []
    for resource, future in answers.items():
        with _kafka_errors(resource.name):
            told = {name: str(entry.value) for name, entry in future.result().items() if entry.value is not None}
        copies = min((len(one.replicas) for one in cluster.topics[resource.name].partitions.values()), default=1)
        wanted = layout.replication_factor
        found += complaints_of(resource.name, asked[resource.name], told, copies, wanted)
    return found


@contextmanager
def _kafka_errors(what: str) -> Iterator[None]:
    """Turn librdkafka's errors into decisions."""
    try:
        yield
    except KafkaException as failed:
        error: KafkaError = failed.args[0]
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicProblem("topic_missing", what) from failed
        if error.retriable() or error.code() < 0:  # negative: librdkafka's own, nobody answered
            raise Unavailable("kafka_unavailable", f"{what}: {error.str()}") from failed
        raise TopicProblem("topic_refused", f"{what}: {error.str()}") from failed
