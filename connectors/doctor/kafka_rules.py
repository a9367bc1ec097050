"""Checks the settings of Kafka's topics on which safety depends (connectors/kafka/topic_rules.py), and that calls are read."""

import asyncio

from connectors.config.connections import deployment_of, kafka_connection, topic_layout
from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.kafka.admin import ELSEWHERE, wrong_topics
from connectors.kafka.topic_rules import Complaint
from connectors.operations.backlog import uncounted_now
from schemas.errors import TopicProblem, Unavailable

_ANSWER_S = 5.0


def is_named(own: Settings) -> bool:
    """Return whether Kafka is configured: the doctor also runs on LiteLLM's machine, which may not reach Kafka."""
    return "kafka_bootstrap_servers" in own.model_fields_set


async def judge_topics(own: Settings) -> tuple[Finding, ...]:
    """Return a finding for each difference from the catalogue; if no role is kept from its start by one, also whether
    calls wait for a meter.

    Raises:
        Unavailable: Kafka does not answer.
    """
    wrong = await asyncio.to_thread(wrong_topics, kafka_connection(own), topic_layout(own), _ANSWER_S)
    findings = [Finding(_code(complaint), complaint.sentence) for complaint in wrong]
    if any(complaint.stops for complaint in wrong):
        return tuple(findings)
    try:
        behind = await asyncio.to_thread(uncounted_now, deployment_of(own))
    except (Unavailable, TopicProblem) as error:  # the topics were read, so this account has no right to the groups
        return (*findings, Finding("calls_unseen", f"{error.detail}."))
    return (*findings, *([Finding("calls_wait", f"{behind.sentence}.")] if behind.is_stuck else []))


def _code(complaint: Complaint) -> str:
    if complaint.setting == ELSEWHERE:
        return "other_topic_prefix"
    return "topic_loses_money" if complaint.stops else "topic_setting"
