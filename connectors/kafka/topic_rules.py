"""Compares a topic's settings with the catalogue; pure.

With a wrong setting that loses money, no role starts. Other differences are only reported: in the log at each start,
and by `meterbridge topics check` and `doctor`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.topics import DAY_MS, DLQ, EVENTS, RAW, RECEIPTS, REJECTED, RETRY, Topic, topic_config

#: Topics whose records are stored nowhere else. If a record is deleted before it is read, usage is lost.
_QUEUES: Final = (RAW, REJECTED, EVENTS, RETRY, DLQ, RECEIPTS)
#: A shorter retention may delete records before an operator notices a problem after a weekend.
LEAST_RETENTION_MS: Final = 3 * DAY_MS
#: Settings that must not differ: compaction or deletion, and the meaning of a record's time.
_VITAL: Final = ("cleanup.policy", "message.timestamp.type")
#: Settings that do not change what is counted.
_ADVISED: Final = ("message.timestamp.after.max.ms", "message.timestamp.before.max.ms")
_AT_LEAST: Final = ("max.message.bytes", "delete.retention.ms")


@dataclass(frozen=True, slots=True)
class Complaint:
    """One setting that differs.

    Fields:
        stops: whether no role starts with this setting.
    """

    setting: str
    sentence: str
    stops: bool


def other_count(name: str, count: int, expected: int) -> str:
    """Return the sentence about a topic with another number of partitions than `KAFKA_PARTITIONS` says."""
    return (
        f"Topic {name} has {count} partitions where {expected} are expected: set KAFKA_PARTITIONS to what the topics "
        "were created with, or expanded to; finish `meterbridge topics expand`."
    )


def complaints(name: str, topic: Topic, actual: Mapping[str, str], copies: int, replicas: int) -> Iterator[Complaint]:
    """Return how a topic's settings differ from the catalogue.

    Args:
        name: name of the topic, with prefix.
        actual: the settings in the broker's response. A setting that is missing there is not checked.
        copies: number of replicas of the partition with the fewest.
        replicas: `KAFKA_REPLICATION_FACTOR`.
    """
    expected = topic_config(topic, replicas)
    for setting in (*_VITAL, *_ADVISED):
        if setting in expected and actual.get(setting, expected[setting]) != expected[setting]:
            yield _other(name, setting, actual[setting], expected[setting], stops=setting in _VITAL)
    for setting in _AT_LEAST:
        if setting in expected and _number(actual.get(setting), expected[setting]) < int(expected[setting]):
            yield _other(name, setting, actual[setting], f"{expected[setting]} or more", fix=expected[setting])
    yield from _kept(name, topic, expected, actual)
    yield from _copied(name, expected, actual, copies, replicas)


def _kept(name: str, topic: Topic, expected: Mapping[str, str], actual: Mapping[str, str]) -> Iterator[Complaint]:
    if expected.get("cleanup.policy") != "delete":
        return
    queue, retention = topic in _QUEUES, expected["retention.ms"]
    kept_ms = _number(actual.get("retention.ms"), retention)
    if 0 <= kept_ms < int(retention):
        stops = queue and kept_ms < LEAST_RETENTION_MS
        yield _other(name, "retention.ms", actual["retention.ms"], f"{retention} or more", stops=stops, fix=retention)
    if _number(actual.get("retention.bytes"), "-1") >= 0:
        yield _other(name, "retention.bytes", actual["retention.bytes"], "-1", stops=queue)


def _copied(
    name: str, expected: Mapping[str, str], actual: Mapping[str, str], copies: int, replicas: int
) -> Iterator[Complaint]:
    """Check the replication. A deployment with `KAFKA_REPLICATION_FACTOR=1` accepts that the loss of a broker loses
    data.
    """
    if copies < replicas:
        yield Complaint("replicas", f"Topic {name} has {copies} copies where {replicas} are expected.", stops=False)
    setting, least = "min.insync.replicas", int(expected["min.insync.replicas"])
    acked = _number(actual.get(setting), str(least))
    if acked > copies:
        yield _other(name, setting, actual[setting], f"at most {copies}, its copies,", stops=True, fix=str(copies))
    elif acked < min(least, copies) or (copies > 1 and acked < 2):  # at least a second copy
        yield _other(name, setting, actual[setting], "2", stops=replicas > 1)
    setting = "unclean.leader.election.enable"
    if copies > 1 and actual.get(setting) == "true":
        yield _other(name, setting, "true", "false", stops=replicas > 1)


def _other(name: str, setting: str, is_now: str, expected: str, *, stops: bool = False, fix: str = "") -> Complaint:
    entry = f"--entity-type topics --entity-name {name} --add-config {setting}={fix or expected}"
    sentence = f"Topic {name} has {setting}={is_now} where {expected} is expected: `kafka-configs.sh --alter {entry}`"
    return Complaint(setting, sentence + (" before anything starts." if stops else "."), stops)


def _number(text: str | None, otherwise: str) -> int:
    return int(otherwise if text is None else text)
