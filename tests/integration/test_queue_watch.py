"""The api process shows how much waits in Kafka, how near it is to its deletion, and whether the audit log was changed."""

import time

from prometheus_client import CollectorRegistry

from connectors.operations.sender import CommandProducer, Outgoing
from connectors.processes.queue_watch import QueueWatch
from connectors.telemetry.metrics import Metrics
from schemas.topics import DAY_MS
from tests.support.calls import Raw
from tests.support.stage import Stage
from tests.unit.access.test_audit_chain import log

DAY_S = DAY_MS / 1000


def watched(stage: Stage) -> tuple[QueueWatch, Metrics]:
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    return QueueWatch(stage.settings, metrics), metrics


async def test_waiting_records_are_shown_with_their_age_and_its_share_of_the_retention(stage: Stage) -> None:
    watch, metrics = watched(stage)
    await watch.once()

    def waiting(name: str, topic: str) -> float:
        return metrics.registry.get_sample_value(f"meterbridge_waiting_{name}", {"topic": topic}) or 0.0

    assert [waiting("records", topic) for topic in ("raw", "events", "retry")] == [0, 0, 0]
    now_ms = time.time_ns() // 1_000_000
    stage.put([Raw(0, now_ms - days * DAY_MS, b"customer", b"{}") for days in (15, 1, 0)])
    await watch.once()
    assert waiting("records", "raw") == 3
    assert 15 * DAY_S <= waiting("oldest_seconds", "raw") < 15 * DAY_S + 60
    assert 0.5 <= waiting("retention_ratio", "raw") < 0.501
    assert waiting("records", "events") == waiting("oldest_seconds", "events") == 0
    names = ("waiting_records", "waiting_oldest_seconds", "waiting_retention_ratio")
    assert all(metrics.registry.get_sample_value(f"meterbridge_{name}", {"topic": "raw"}) for name in names)


async def test_a_changed_audit_log_is_reported(stage: Stage) -> None:
    def broken(metrics: Metrics) -> float | None:
        return metrics.registry.get_sample_value("meterbridge_audit_chain_broken")

    lines = log(5)
    CommandProducer(stage.connection).send(Outgoing(stage.topics.audit, b"key", value) for value in lines)
    watch, metrics = watched(stage)
    await watch.once()
    assert broken(metrics) == 0
    CommandProducer(stage.connection).send([Outgoing(stage.topics.audit, b"key", lines[1])])
    await watch.once()
    assert broken(metrics) == 0, "checked once an hour"
    watch, metrics = watched(stage)
    await watch.once()
    assert broken(metrics) == 1
