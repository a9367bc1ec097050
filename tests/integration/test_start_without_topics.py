"""What the long-running commands say and do when the topics that they need do not exist: one sentence, and an end."""

import asyncio
import os

import pytest

from connectors.kafka.admin import create_topics
from tests.support.command import ended
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.stage import Stage
from tests.support.values import topics_of

pytestmark = pytest.mark.kafka


def _environment(kafka: Kafka, prefix: str, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "TOPIC_PREFIX": prefix,
        "METRICS_PORT": "0",
        "PORT": str(free_port()),
        "ALLOW_UNAUTHENTICATED": "1",
        **more,
    }


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["serve"], {}),
        (["worker", "--only", "meter"], {}),
        (["worker", "--only", "meter,sink,retry"], {"WORKER_PROCESSES": "per_role"}),
        (["worker", "--only", "meter,sink,retry"], {"WORKER_PROCESSES": "one"}),
    ],
    ids=["serve", "a role", "a process a role", "roles in one process"],
)
async def test_without_topics_a_process_says_once_what_to_do_and_ends(
    words: list[str], more: dict[str, str], kafka: Kafka, topic_prefix: str
) -> None:
    """In an earlier version a worker of several roles said it for each role, again and again without end; `serve` said before that it
    serves."""
    result = await ended(_environment(kafka, topic_prefix, **more), *words)
    sentences = [line for line in result.err.splitlines() if line.startswith("meterbridge: ")]
    assert (result.code, len(sentences)) == (1, 1), result.err
    # Kafka may have topics of other tests: then the sentence names their prefix first.
    assert topic_prefix in sentences[0] and "`meterbridge topics create`." in sentences[0]
    assert "worker_restarted" not in result.err
    assert '"serving"' not in result.err


@pytest.mark.parametrize("words", ["worker --only meter,sink", "topics check", "held list"])
async def test_topics_under_another_prefix_are_named(words: str, kafka: Kafka, topic_prefix: str) -> None:
    """The advice to create topics would make a second set, which nobody fills."""
    stage = await asyncio.to_thread(Stage, kafka.bootstrap, topic_prefix, 1)
    await asyncio.to_thread(create_topics, *topics_of(stage.settings))
    result = await ended(_environment(kafka, f"{topic_prefix}wrong.", KAFKA_PARTITIONS="1"), *words.split())
    assert result.code == 1
    assert "There are topics of " in result.err and "is missing" not in result.err and "are missing" not in result.err
    assert f"and none of TOPIC_PREFIX={topic_prefix}wrong., which is set now: correct TOPIC_PREFIX." in result.err
