"""Topics that are all missing may exist under another `TOPIC_PREFIX`; then the complaint names it."""

from types import SimpleNamespace
from typing import Any

import pytest

from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.kafka import admin
from connectors.kafka.errors import in_one
from schemas.topics import CATALOGUE, RAW


def complaint(existing: set[str], prefix: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a process that cannot start says on a cluster with these topics."""
    topics = {name: SimpleNamespace(partitions=dict.fromkeys(range(12))) for name in existing}
    cluster: Any = SimpleNamespace(topics=topics, cluster_id="mockCluster")
    client = SimpleNamespace(list_topics=lambda **_: cluster, poll=lambda _: 0)
    monkeypatch.setattr(admin, "_admin", lambda _: client)
    kafka = KafkaConnection("localhost:9092")
    return in_one(admin.check_topics(kafka, TopicLayout(prefix, 12, 1), to_start=True))


def of(prefix: str) -> set[str]:
    return {prefix + topic.name for topic in CATALOGUE}


@pytest.mark.parametrize(
    ("existing", "prefix", "said"),
    [
        (of("meter."), "prod.", "there are topics of TOPIC_PREFIX=meter., while TOPIC_PREFIX is prod.:"),
        (of("meter."), "", "there are topics of TOPIC_PREFIX=meter., while TOPIC_PREFIX is not set:"),
        (of(""), "prod.", "there are topics of no TOPIC_PREFIX, while TOPIC_PREFIX is prod.:"),
        (of("a.") | of("b."), "c.", "there are topics of TOPIC_PREFIX=a. or TOPIC_PREFIX=b., while"),
    ],
)
def test_topics_of_another_prefix_are_named_behind_the_missing_ones(
    existing: set[str], prefix: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = complaint(existing, prefix, monkeypatch)
    assert text.startswith(f"Topics {prefix}{RAW.name}, ")
    assert said in text
    assert text.endswith("`meterbridge topics create` would make other, empty ones.")


@pytest.mark.parametrize("existing", [set(), of("prod.") - {f"prod.{RAW.name}"} | of("meter."), {f"others-{RAW.name}"}])
def test_no_other_prefix_is_named_if_there_is_none_or_the_own_topics_are_only_incomplete(
    existing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = complaint(existing, "prod.", monkeypatch)
    assert "missing" in text
    assert "there are topics" not in text
