"""The offsets of a span of time in a topic, while the broker does not know a partition's leader."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka import topic_scan
from connectors.kafka.topic_scan import offset_range_of
from schemas.errors import Unavailable

_KAFKA = KafkaConnection("localhost:9092")
_NOT_YET = KafkaError.NOT_LEADER_FOR_PARTITION


class _Metadata:
    """A topic of one partition."""

    error = None
    partitions = (0,)
    topics = property(lambda self: {"t": self})


class _Found:
    """The answer about a partition."""

    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self.partition, self.offset, self.error = 0, offset, error


class _Consumer:
    """Ten records with times 0 to 9; the first `refusals` of each request are answered with `code`."""

    def __init__(self, code: int, refusals: int) -> None:
        self._code, self._watermarks, self._times = code, refusals, refusals

    def list_topics(self, _topic: str, timeout: float) -> _Metadata:
        assert timeout > 0
        return _Metadata()

    def get_watermark_offsets(self, _partition: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        self._watermarks -= 1
        if self._watermarks >= 0:
            raise KafkaException(KafkaError(self._code))
        return 0, 10

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[_Found]:
        assert timeout > 0
        self._times -= 1
        if self._times >= 0:
            return [_Found(-1, KafkaError(self._code))]
        return [_Found(partition.offset if partition.offset < 10 else -1) for partition in asked]

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes the broker answer so; a slow machine has time enough for a few refusals."""
    monkeypatch.setattr(topic_scan, "_AGAIN_S", 0.001)
    monkeypatch.setattr(topic_scan, "LIMIT_S", 60.0)
    return lambda code, refusals: monkeypatch.setattr(
        topic_scan, "reader", lambda _kafka, **_: _Consumer(code, refusals)
    )


@pytest.mark.parametrize("code", [_NOT_YET, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_a_broker_that_is_not_leader_yet_is_asked_again(answers: Callable[[int, int], None], code: int) -> None:
    """No partition counts as empty because its broker could not tell where the span begins."""
    answers(code, 3)
    assert offset_range_of(_KAFKA, "t", 4, 7).ranges == {0: (4, 7)}
    answers(code, 3)
    assert offset_range_of(_KAFKA, "t", 4, 99).ranges == {0: (4, 10)}
    answers(code, 3)
    assert offset_range_of(_KAFKA, "t", 99).ranges == {0: (10, 10)}


@pytest.mark.parametrize(("code", "refusals"), [(_NOT_YET, 10_000), (KafkaError.TOPIC_AUTHORIZATION_FAILED, 1)])
def test_a_broker_that_keeps_refusing_does_not_count_as_an_empty_topic(
    answers: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch, code: int, refusals: int
) -> None:
    """It is not asked forever, and not again if waiting does not help."""
    monkeypatch.setattr(topic_scan, "LIMIT_S", 0.05)
    answers(code, refusals)
    with pytest.raises(Unavailable, match="kafka_unavailable"):
        offset_range_of(_KAFKA, "t", 4, 7)
