"""Which topic settings stop a role at its start, and which are only reported."""

import pytest

from connectors.kafka.topic_rules import Complaint, complaints
from schemas.topics import (
    CATALOGUE,
    CHANGELOG,
    CUSTOMERS,
    DAY_MS,
    DELIVERIES,
    ENRICHED,
    EVENTS,
    RAW,
    Topic,
    topic_config,
)

STOPS, NAMED = True, False


def complaints_of(topic: Topic, copies: int = 3, wanted: int = 3, **other: str) -> list[Complaint]:
    """Result for a topic as it was created, with the changes in `other`; a dot is written as two underscores."""
    found = topic_config(topic, wanted) | {name.replace("__", "."): value for name, value in other.items()}
    return list(complaints(f"p.{topic.name}", topic, found, copies, wanted))


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
@pytest.mark.parametrize("copies", [1, 3])
def test_a_topic_as_created_has_no_finding(topic: Topic, copies: int) -> None:
    assert complaints_of(topic, copies, copies) == []
    assert list(complaints("x", topic, {}, copies, copies)) == [], "a broker that knows none of them is not judged"


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_every_setting_that_safety_depends_on_is_checked(topic: Topic) -> None:
    kept = (
        {"retention.ms", "retention.bytes"} if topic.config["cleanup.policy"] == "delete" else {"delete.retention.ms"}
    )
    pinned = {"cleanup.policy", "max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable"}
    assert pinned | kept <= topic_config(topic, 3).keys()


@pytest.mark.parametrize(
    ("topic", "other", "expected"),
    [
        (RAW, {"cleanup__policy": "compact"}, STOPS),
        (CUSTOMERS, {"cleanup__policy": "delete"}, STOPS),
        (CHANGELOG, {"cleanup__policy": "compact,delete"}, STOPS),
        (RAW, {"message__timestamp__type": "LogAppendTime"}, STOPS),
        (RAW, {"message__timestamp__after__max__ms": "9223372036854775807"}, NAMED),
        (RAW, {"message__timestamp__before__max__ms": "1"}, NAMED),
        (RAW, {"max__message__bytes": "1048588"}, NAMED),
        (CHANGELOG, {"max__message__bytes": "1000"}, NAMED),
        (CUSTOMERS, {"delete__retention__ms": "1000"}, NAMED),
        (RAW, {"retention__ms": str(3 * DAY_MS)}, NAMED),
        (RAW, {"retention__ms": str(3 * DAY_MS - 1)}, STOPS),
        (EVENTS, {"retention__ms": "0"}, STOPS),
        (ENRICHED, {"retention__ms": "1000"}, NAMED),
        (RAW, {"retention__bytes": "1073741824"}, STOPS),
        (DELIVERIES, {"retention__bytes": "0"}, NAMED),
        (RAW, {"min__insync__replicas": "1"}, STOPS),
        (RAW, {"min__insync__replicas": "4"}, STOPS),
        (RAW, {"unclean__leader__election__enable": "true"}, STOPS),
    ],
)
def test_a_wrong_setting_stops_the_start_if_money_could_be_lost(
    topic: Topic, other: dict[str, str], expected: bool
) -> None:
    [result] = complaints_of(topic, **other)
    ((name, value),) = other.items()
    assert result.stops is expected
    assert f"Topic p.{topic.name} has {name.replace('__', '.')}={value} where " in result.sentence
    assert f"kafka-configs.sh --alter --entity-type topics --entity-name p.{topic.name} --add-config" in result.sentence


@pytest.mark.parametrize(
    "other",
    [
        {"retention__ms": "-1"},
        {"retention__ms": str(90 * DAY_MS)},
        {"max__message__bytes": "16777216"},
        {"min__insync__replicas": "3"},
    ],
)
def test_a_setting_that_is_safer_than_required_is_accepted(other: dict[str, str]) -> None:
    assert complaints_of(RAW, **other) == []


def test_a_single_replica_that_was_asked_for_is_reported_and_does_not_stop_the_start() -> None:
    alone = complaints_of(RAW, 3, 1, min__insync__replicas="1", unclean__leader__election__enable="true")
    assert [(one.setting, one.stops) for one in alone] == [
        ("min.insync.replicas", NAMED),
        ("unclean.leader.election.enable", NAMED),
    ]
    assert [(one.setting, one.stops) for one in complaints_of(RAW, 2, 3)] == [("replicas", NAMED)]
    assert [(one.setting, one.stops) for one in complaints_of(RAW, 1, 3)] == [
        ("replicas", NAMED),
        ("min.insync.replicas", STOPS),
    ]
