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
        (of("meter."), "prod.", "TOPIC_PREFIX=meter., and none of TOPIC_PREFIX=prod., which is set now:"),
        (of("meter."), "", "TOPIC_PREFIX=meter., and none of the empty TOPIC_PREFIX, which is set now:"),
        (of(""), "prod.", "the empty TOPIC_PREFIX, and none of TOPIC_PREFIX=prod., which is set now:"),
        (
            of("a.") | of("b."),
            "c.",
            "TOPIC_PREFIX=a. or TOPIC_PREFIX=b., and none of TOPIC_PREFIX=c., which is set now:",
        ),
    ],
)
def test_topics_of_another_prefix_are_named_and_no_advice_contradicts_it(
    existing: set[str], prefix: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier the sentence began with all missing topics and the advice to create them, which would make empty ones."""
    text = complaint(existing, prefix, monkeypatch)
    assert text.startswith(f"There are topics of {said} correct TOPIC_PREFIX.")
    assert text.endswith("Only if you want other, empty topics: `meterbridge topics create`.") and "missing" not in text


@pytest.mark.parametrize("existing", [set(), of("prod.") - {f"prod.{RAW.name}"} | of("meter."), {f"others-{RAW.name}"}])
def test_no_other_prefix_is_named_if_there_is_none_or_the_own_topics_are_only_incomplete(
    existing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = complaint(existing, "prod.", monkeypatch)
    assert "missing" in text
    assert "there are topics" not in text
