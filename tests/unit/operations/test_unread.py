"""The committed offset of a consumer group, from a broker that is not ready to answer."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from connectors.operations.unread import committed_of

PLACES = [TopicPartition("t", 0), TopicPartition("t", 1)]


class Member:
    """Answers with errors first, then with offset 7."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return [TopicPartition(place.topic, place.partition, 7) for place in places]


def committed_offsets(member: Any, limit_s: float = 5.0) -> list[int]:
    return [place.offset for place in committed_of(member, PLACES, limit_s)]


def test_a_coordinator_that_is_being_elected_or_loading_is_asked_again() -> None:
    coming = (
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    )
    assert committed_offsets(Member(*coming)) == [7, 7]


def test_an_unavailable_coordinator_is_not_asked_forever() -> None:
    with pytest.raises(KafkaException):
        committed_offsets(Member(*[KafkaError.NOT_COORDINATOR] * 100), limit_s=0.3)


def test_a_permanent_error_is_raised_at_once() -> None:
    with pytest.raises(KafkaException):
        committed_offsets(Member(KafkaError.GROUP_AUTHORIZATION_FAILED), limit_s=60)
