"""A command that lists the topics reports within seconds that Kafka is unavailable."""

from typing import Any

import pytest

from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.kafka import admin
from connectors.kafka.admin import LIMIT_S, check_topics, missing_topics


class FirstRequest(Exception):
    """Ends a test at the first request, with Kafka's time limit for the answer."""


class Waiting:
    """A client that reports how long it would wait."""

    def list_topics(self, *, timeout: float) -> Any:
        raise FirstRequest(timeout)

    def poll(self, _timeout: float) -> int:
        return 0


@pytest.mark.parametrize("ask", [check_topics, missing_topics])
def test_the_first_request_waits_five_seconds_at_most(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_admin", lambda _kafka: Waiting())
    kafka, layout = object.__new__(KafkaConnection), object.__new__(TopicLayout)
    with pytest.raises(FirstRequest) as longest:
        ask(kafka, layout)
    with pytest.raises(FirstRequest) as shorter:
        ask(kafka, layout, 1.5)
    assert (longest.value.args, shorter.value.args) == ((5.0,), (1.5,))
    assert LIMIT_S > 5.0
