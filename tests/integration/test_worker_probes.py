"""A worker's process answers probes on METRICS_PORT: while it waits for Kafka, while it runs, and while a partition is
halted.
"""

import asyncio
from typing import Any

import httpx

from connectors.config.settings import Settings
from connectors.processes.worker_parts import worker_parts
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.server import settings_for


async def ready(settings: Settings) -> tuple[int, Any]:
    async with http_client(trust_env=False, timeout=10 * PATIENCE) as http:
        answer = await http.get(f"http://{settings.host}:{settings.metrics_port}/health/ready")
    return answer.status_code, answer.json()


async def test_a_halted_partition_makes_its_worker_unready(kafka: Kafka, topic_prefix: str) -> None:
    settings = settings_for(kafka, topic_prefix, metrics_port=free_port())
    async with worker_parts(settings, "meter") as parts:
        assert await ready(settings) == (200, {"status": "ok"})
        parts.sensors.partition_halted(parts.topics.raw, 2, "offset_out_of_range")
        halted = [{"topic": parts.topics.raw, "partition": 2, "reason": "offset_out_of_range"}]
        assert await ready(settings) == (503, {"status": "halted", "partitions": halted})


async def test_a_worker_that_waits_for_kafka_is_alive_and_not_ready() -> None:
    settings = Settings(
        kafka_bootstrap_servers=f"127.0.0.1:{free_port()}", metrics_port=free_port(), lago_api_key="a-key"
    )

    async def run() -> None:
        async with worker_parts(settings, "meter"):
            raise AssertionError("there is no Kafka")

    running = asyncio.ensure_future(run())
    try:
        async with http_client(trust_env=False, timeout=10 * PATIENCE) as http:
            for _ in range(200):
                try:
                    live = await http.get(f"http://{settings.host}:{settings.metrics_port}/health/live")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        assert live.status_code == 200
        assert await ready(settings) == (503, {"status": "starting"})
    finally:
        running.cancel()
        await asyncio.wait({running})
