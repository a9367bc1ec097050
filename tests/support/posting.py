"""Events on a stage, and a delivery that times out within a test."""

import asyncio
import random
import time
from collections.abc import Sequence

import httpx
import msgspec
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from connectors.lago.client import LagoClient
from schemas.records import LagoEvent, Manifest
from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.circuit_breaker import Breaker
from streams.delivery.engine import Delivery
from streams.runtime.role import Role
from streams.state.step_writes import MANIFEST
from tests.support.eventually import PATIENCE, soon
from tests.support.sandbox import KEY, Lago
from tests.support.stage import Stage

Headers = list[tuple[str, str | bytes | None]]


def quick_delivery(lago: Lago, http: httpx.AsyncClient, *, isolate_after: int = 2, alone_after: int = 3) -> Delivery:
    """Return a delivery with short timeouts."""
    policy = RetryPolicy(
        random.random,
        base_s=0.01,
        cap_s=0.05,
        isolate_after=isolate_after,
        alone_after=alone_after,
        give_way_s=0.05,
        health_s=0.02,
    )
    return Delivery(
        LagoClient(http, lago.url, KEY),
        concurrency=asyncio.Semaphore(4),
        breaker=Breaker(policy, time.monotonic()),
        policy=policy,
        clock=time.monotonic,
        sleep=asyncio.sleep,
        on_request=lambda *_: None,
    )


def limit_records(stage: Stage, topic: str, size: int) -> None:
    """Let the broker refuse larger records of a topic."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result()


def event(number: int, cents: str = "1.5") -> LagoEvent:
    at = f"{int(time.time())}.000"
    return LagoEvent(f"e-{number}", "sub", "ai_usage", at, cents, {"unit": "1", "requests": "1"})


def put(stage: Stage, events: Sequence[LagoEvent | bytes]) -> None:
    """Put events as the meter writes them; bytes are a record that is not an event."""
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1))
    for one in events:
        value = one if isinstance(one, bytes) else msgspec.json.encode(one)
        stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10 * PATIENCE)


def put_into_retry(stage: Stage, value: bytes, headers: Headers, tier: int = 0) -> None:
    """Put a record into the retry topic."""
    stage.producer.produce(stage.topics.retry, value, "sub", partition=tier, headers=headers)
    stage.producer.flush(10 * PATIENCE)


def statuses(stage: Stage) -> dict[str, str]:
    """Return the latest state of each event."""
    return {receipt["transaction_id"]: receipt["status"] for receipt in stage.values(stage.topics.receipts)}


async def opened(role: Role) -> None:
    """Return when every partition task knows its position."""
    await soon(
        lambda: (
            bool(role.partition_tasks)
            and all(partition_task.expected is not None for partition_task in role.partition_tasks.values())
        )
    )
