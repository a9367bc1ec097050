"""A command that asks for the topics says within seconds that Kafka is away."""

from typing import Any

import pytest

from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.kafka import admin
from connectors.kafka.admin import LIMIT_S, check_topics, missing_topics


class Asked(Exception):
    """Ends a test at the first question, with the time that Kafka has for its answer."""


class Waiting:
    """A client that says how long it would wait."""

    def list_topics(self, *, timeout: float) -> Any:
        raise Asked(timeout)

    def poll(self, _timeout: float) -> int:
        return 0


@pytest.mark.parametrize("ask", [check_topics, missing_topics])
def test_the_first_question_waits_five_seconds_at_most(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_admin", lambda _kafka: Waiting())
    kafka, layout = object.__new__(KafkaConnection), object.__new__(TopicLayout)
    with pytest.raises(Asked) as longest:
        ask(kafka, layout)
    with pytest.raises(Asked) as shorter:
        ask(kafka, layout, 1.5)
    assert (longest.value.args, shorter.value.args) == ((5.0,), (1.5,))
    assert LIMIT_S > 5.0
