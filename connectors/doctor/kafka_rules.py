"""Checks the settings of Kafka's topics on which safety depends (connectors/kafka/topic_rules.py)."""

import asyncio

from connectors.config.connections import kafka_connection, topic_layout
from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.kafka.admin import wrong_topics

_ANSWER_S = 5.0


def is_named(own: Settings) -> bool:
    """Return whether Kafka is configured: the doctor also runs on LiteLLM's machine, which may not reach Kafka."""
    return "kafka_bootstrap_servers" in own.model_fields_set


async def judge_topics(own: Settings) -> tuple[Finding, ...]:
    """Return a finding for each difference from the catalogue.

    Raises:
        Unavailable: Kafka does not answer.
    """
    wrong = await asyncio.to_thread(wrong_topics, kafka_connection(own), topic_layout(own), _ANSWER_S)
    return tuple(
        Finding("topic_loses_money" if complaint.stops else "topic_setting", complaint.sentence) for complaint in wrong
    )
