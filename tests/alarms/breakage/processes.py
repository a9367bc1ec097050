"""Faults of the alarms about processes and Postgres (deploy/prometheus/rules/processes.yml)."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import asyncpg
from confluent_kafka import TopicPartition

from tests.alarms import damage
from tests.alarms.breakage.scene import Fault, Scene, killed, meanwhile
from tests.faults.world import COMMANDS, OURS
from tests.support.database import rows
from tests.support.ports import free_port
from tests.support.webhook_receiver import SECRET as WEBHOOK_SECRET
from tests.unit.telemetry.test_process_metrics import certificate_from_now

__all__ = ("FAULTS", "WEBHOOK_SECRET")
_GONE, _TAKEN = 410, 204


def certificate_ends_in(days: int) -> Fault:
    """The file in `KAFKA_SSL_CAFILE` contains another certificate."""

    @contextlib.asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        scene.certificate.write_bytes(certificate_from_now(timedelta(days=days)))
        yield
        scene.certificate.write_bytes(certificate_from_now(timedelta(days=400)))

    return fault


@contextlib.asynccontextmanager
async def prometheus_asks_at_a_wrong_address(scene: Scene) -> AsyncIterator[None]:
    scene.monitor.scrape([free_port()])
    yield
    scene.monitor.scrape(scene.metrics.values())


@contextlib.asynccontextmanager
async def one_of_two_processes_has_ended(scene: Scene) -> AsyncIterator[None]:
    async with scene.joined_by("sink-1"):
        await scene.world.processes["sink-1"].terminate()
        yield


@contextlib.asynccontextmanager
async def upgrade_was_not_finished(scene: Scene) -> AsyncIterator[None]:
    async with scene.joined_by("sink-old"):
        yield


@contextlib.asynccontextmanager
async def task_fails_again_and_again(scene: Scene) -> AsyncIterator[None]:
    """A planted bug: the task that logs the partitions of the retry role always ends with an error."""
    retry = scene.world.processes["retry-0"]
    await scene.stopped("retry-0")
    retry.becomes([sys.executable, "-m", "tests.support.failing_task", *COMMANDS["retry-0"]])
    await scene.started("retry-0")
    yield
    await scene.stopped("retry-0")
    retry.becomes([*OURS, *COMMANDS["retry-0"]])
    await scene.started("retry-0")


@contextlib.asynccontextmanager
async def postgres_away(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.postgres.kill)
    yield
    await asyncio.to_thread(scene.postgres.restart)


@contextlib.asynccontextmanager
async def stranger_writes_a_call(scene: Scene) -> AsyncIterator[None]:
    await scene.stranger_writes(scene.world.topics.enriched, b"no call")
    yield


@contextlib.asynccontextmanager
async def postgres_refuses_the_sums(scene: Scene) -> AsyncIterator[None]:
    """An operator has added a constraint to the table."""
    database = scene.database
    await rows(database, "ALTER TABLE usage_summary_days ADD CONSTRAINT by_hand CHECK (calls < 0) NOT VALID")
    yield
    await rows(database, "ALTER TABLE usage_summary_days DROP CONSTRAINT by_hand")
    await rows(database, "UPDATE usage_days_failed SET retry_at = clock_timestamp()")


@contextlib.asynccontextmanager
async def receiver_is_gone(scene: Scene) -> AsyncIterator[None]:
    """The receiver of outgoing webhooks answers 410 to the message that a customer's usage is now held."""
    scene.receiver.status = _GONE
    await scene.traffic.send(scene.traffic.call("homeless", cost_usd="0.001"))
    yield
    scene.receiver.status = _TAKEN
    await scene.written_off("homeless")
    await scene.command("webhooks", "test")


@contextlib.asynccontextmanager
async def requests_hold_all_connections(scene: Scene) -> AsyncIterator[None]:
    """A foreign transaction locks the table of provider keys, and requests for keys wait for it."""
    body = {"user_id": "ada", "provider": "openai"}
    connection = await asyncpg.connect(scene.database)
    try:
        async with scene.api() as api, connection.transaction():
            await connection.execute("LOCK TABLE user_provider_keys IN ACCESS EXCLUSIVE MODE")

            async def ask() -> None:
                await asyncio.gather(*(api.post("/api/v1/provider-keys/resolve", json=body) for _ in range(4)))

            async with asyncio.timeout(200), meanwhile(ask, 1.0):
                yield
                await connection.execute("SELECT 1")
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def audit_line_is_forged(scene: Scene) -> AsyncIterator[None]:
    """A line is written again under another name. It stays, so this alarm keeps firing."""
    topic = scene.world.topics.audit
    line = await asyncio.to_thread(damage.first, scene.kafka.bootstrap, topic)
    forged = json.dumps({**json.loads(line), "actor": "eve"}).encode()
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, TopicPartition(topic, 0), forged, b"key")
    await scene.restarted("api")
    yield


FAULTS: Final[dict[str, Fault]] = {
    "MeterbridgeNothingScraped": prometheus_asks_at_a_wrong_address,
    "MeterbridgeRoleMissing": killed("sink-0"),
    "MeterbridgeTargetDown": one_of_two_processes_has_ended,
    "MeterbridgeCertificateEndsSoon": certificate_ends_in(10),
    "MeterbridgeCertificateEnds": certificate_ends_in(1),
    "MeterbridgeProjectorBehind": postgres_away,
    "MeterbridgeProjectorHalfwayToDeletion": postgres_away,
    "MeterbridgeRowsLeftOut": stranger_writes_a_call,
    "MeterbridgeBackgroundTaskFails": task_fails_again_and_again,
    "MeterbridgeAnalyticsFail": postgres_refuses_the_sums,
    "MeterbridgeWebhookEndpointDisabled": receiver_is_gone,
    "MeterbridgeApiShortOfPostgres": requests_hold_all_connections,
    "MeterbridgeAuditLogChanged": audit_line_is_forged,
    "MeterbridgeTwoVersions": upgrade_was_not_finished,
}
