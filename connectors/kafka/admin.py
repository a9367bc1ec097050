"""Creates the topics of the catalogue, and checks them. The functions block, so async callers use a thread.

A worker checks the topics before it starts: with a missing topic, Faust would loop without end and ignore SIGTERM.
"""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, NewTopic, ResourceType

from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.errors import topic_missing
from connectors.kafka.topic_rules import Complaint, other_count
from connectors.kafka.topic_rules import complaints as complaints_of
from schemas.errors import TopicProblem, Unavailable
from schemas.topics import CATALOGUE, EVENTS, RAW, Topic, has_right_count, partition_count, topic_config

log = structlog.get_logger(__name__)

#: Time limit of one response of the broker, seconds.
LIMIT_S = 20.0
#: A cluster that does not list its topics within this time is away; a change of topics may take longer.
_ANSWERS_WITHIN_S = 5.0
#: The same for the first request of a command: an operator waits for it.
FIRST_ANSWER_S = 10.0
#: The `setting` of the complaint that the topics have another prefix.
ELSEWHERE = "prefix"
#: How many other prefixes a sentence names.
_MOST_PREFIXES = 3
#: Beginning of the cluster id of librdkafka's in-process broker (connectors/demo/broker.py). That broker has no
#: controller, so it answers no requests for settings and topic ids.
_EMBEDDED = "mockCluster"


@dataclass(frozen=True, slots=True)
class TopicsCreated:
    """The result of `create_topics`: full names, in the order of the catalogue."""

    created: tuple[str, ...]
    existed: tuple[str, ...]


def missing_topics(kafka: KafkaConnection, layout: TopicLayout, limit_s: float = LIMIT_S) -> tuple[str, ...]:
    """Return the full names of the topics that `create_topics` would create. Raises: Unavailable: the broker does not
    answer.
    """
    existing = _partitions(_metadata(_admin(kafka), limit_s))
    return tuple(name for topic in CATALOGUE if (name := layout.prefix + topic.name) not in existing)


def create_topics(kafka: KafkaConnection, layout: TopicLayout) -> TopicsCreated:
    """Create the missing topics of the catalogue, and wait until the broker lists all of them. Existing ones are not changed.

    Raises:
        TopicProblem: the broker refuses a topic, e.g. because there are fewer brokers than requested copies.
        Unavailable: the broker does not answer; repeating is safe.
    """
    admin = _admin(kafka)
    required = {layout.prefix + topic.name: topic for topic in CATALOGUE}
    # Only missing topics are requested: the account may not be allowed to create topics.
    existing = _partitions(_metadata(admin, LIMIT_S)).keys()
    created = _create(admin, {name: topic for name, topic in required.items() if name not in existing}, layout)
    deadline = time.monotonic() + LIMIT_S
    while required.keys() - _partitions(_metadata(admin, LIMIT_S)).keys():
        if time.monotonic() > deadline:
            raise Unavailable("kafka_unavailable", "created topics do not appear in the cluster's metadata")
        time.sleep(0.05)
    return TopicsCreated(created, tuple(name for name in required if name not in created))


def check_topics(
    kafka: KafkaConnection, layout: TopicLayout, limit_s: float = LIMIT_S, *, to_start: bool = False
) -> list[str]:
    """Check the topics; return one sentence for each problem.

    Args:
        to_start: return only problems with which no process can start, and log the others.

    Raises:
        Unavailable: the broker does not answer.
    """
    sentences = []
    for wrong in wrong_topics(kafka, layout, limit_s):
        if to_start and not wrong.stops:
            log.warning("topic_setting", setting=wrong.setting, difference=wrong.sentence)
        else:
            sentences.append(wrong.sentence)
    return sentences


def wrong_topics(kafka: KafkaConnection, layout: TopicLayout, limit_s: float = LIMIT_S) -> list[Complaint]:
    """Return how the topics differ from the catalogue.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = _admin(kafka)
    cluster = _metadata(admin, limit_s)
    partitions = _partitions(cluster)
    complaints = []
    present = []
    for topic in CATALOGUE:
        name, expected = layout.prefix + topic.name, partition_count(topic, layout.partitions)
        if name not in partitions:
            complaints.append(Complaint("missing", topic_missing(name).detail, stops=True))
            continue
        present.append(topic)
        if not has_right_count(topic, partitions[name], layout.partitions):
            complaints.append(Complaint("partitions", other_count(name, partitions[name], expected), stops=True))
    if elsewhere := _another_prefix(partitions, layout.prefix):
        return [Complaint(ELSEWHERE, elsewhere, stops=True)]  # the advice to create topics would be wrong
    if _embedded(cluster):
        return complaints
    return complaints + _wrong_settings(admin, cluster, present, layout, limit_s)


def topics_elsewhere(kafka: KafkaConnection, layout: TopicLayout) -> str:
    """Return a sentence if none of the topics exists, and those of another `TOPIC_PREFIX` do; otherwise `""`.

    Raises:
        Unavailable: the broker does not answer.
    """
    return _another_prefix(_partitions(_metadata(_admin(kafka), LIMIT_S)), layout.prefix)


def _another_prefix(existing: Collection[str], prefix: str) -> str:
    if any(prefix + topic.name in existing for topic in CATALOGUE):
        return ""
    found = (name.removesuffix(RAW.name) for name in existing if name.endswith(RAW.name))
    others = sorted(other for other in found if other + EVENTS.name in existing)
    if not others:
        return ""
    own, *named = (f"TOPIC_PREFIX={one}" if one else "the empty TOPIC_PREFIX" for one in (prefix, *others))
    return (
        f"There are topics of {' or '.join(named[:_MOST_PREFIXES])}, and none of {own}, which is set now: correct TOPIC_PREFIX. "
        "Only if you want other, empty topics: `meterbridge topics create`."
    )


def topic_ids(kafka: KafkaConnection, names: Iterable[str], limit_s: float = LIMIT_S) -> dict[str, str]:
    """Return the ids of topics by full name (KIP-516). A topic that is deleted and created again has another id.

    The embedded broker has no topic ids. Its topics exist as long as the broker itself, so its cluster id is used.

    Raises:
        TopicProblem: `topic_missing`.
        Unavailable: the broker does not answer.
    """
    admin = _admin(kafka)
    if _embedded(cluster := _metadata(admin, limit_s)):
        return dict.fromkeys(names, str(cluster.cluster_id))
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=limit_s)
    ids = {}
    for name, future in described.items():
        with kafka_errors(name):
            # Kafka uses URL-safe base64, librdkafka the standard one. The ids become parts of ids in Lago.
            ids[name] = str(future.result().topic_id).translate(_URL_SAFE).rstrip("=")
    return ids


_URL_SAFE = str.maketrans("+/", "-_")


def _admin(kafka: KafkaConnection) -> AdminClient:
    return AdminClient(librdkafka_config(kafka))


def _create(admin: AdminClient, missing: dict[str, Topic], layout: TopicLayout) -> tuple[str, ...]:
    copies = layout.replication_factor
    topics = [
        NewTopic(name, partition_count(topic, layout.partitions), copies, config=topic_config(topic, copies))
        for name, topic in missing.items()
    ]
    futures = admin.create_topics(topics, request_timeout=LIMIT_S) if topics else {}
    created = []
    for name, future in futures.items():
        with kafka_errors(name):
            try:
                future.result()
            except KafkaException as failed:
                if failed.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process created it first
                    raise
            else:
                created.append(name)
    return tuple(created)


def _metadata(admin: AdminClient, limit_s: float) -> ClusterMetadata:
    try:
        with kafka_errors("list topics"):
            return admin.list_topics(timeout=min(limit_s, _ANSWERS_WITHIN_S))
    finally:
        admin.poll(
            0
        )  # poll, so that librdkafka logs the reason: a refused password or certificate raises no error here


def _partitions(cluster: ClusterMetadata) -> dict[str, int]:
    return {name: len(topic.partitions) for name, topic in cluster.topics.items()}


def _embedded(cluster: ClusterMetadata) -> bool:
    return str(cluster.cluster_id).startswith(_EMBEDDED)


def _wrong_settings(
    admin: AdminClient, cluster: ClusterMetadata, topics: list[Topic], layout: TopicLayout, limit_s: float
) -> list[Complaint]:
    """Return how settings differ from the catalogue. A setting that an old broker (before 3.6) does not have is
    ignored.
    """
    described = {layout.prefix + topic.name: topic for topic in topics}
    if not described:
        return []
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in described]
    answers = admin.describe_configs(resources, request_timeout=limit_s)
    wrong: list[Complaint] = []
    for resource, future in answers.items():
        with kafka_errors(resource.name):
            actual = {name: str(entry.value) for name, entry in future.result().items() if entry.value is not None}
        copies = min(
            (len(partition.replicas) for partition in cluster.topics[resource.name].partitions.values()), default=1
        )
        replicas = layout.replication_factor
        wrong += complaints_of(resource.name, described[resource.name], actual, copies, replicas)
    return wrong


@contextmanager
def kafka_errors(what: str) -> Iterator[None]:
    """Translate librdkafka's errors.

    Args:
        what: name of the request in the message.

    Raises:
        TopicProblem: Kafka refuses it.
        Unavailable: no broker answered.
    """
    try:
        yield
    except KafkaException as failed:
        error: KafkaError = failed.args[0]
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise topic_missing(what) from failed
        if error.retriable() or error.code() < 0:  # a negative code is librdkafka's own: no broker answered
            raise Unavailable("kafka_unavailable", f"{what}: {error.str()}") from failed
        raise TopicProblem("topic_refused", f"{what}: {error.str()}") from failed
