"""A worker is built from its variables: names, waits, and how many requests of which size go to Lago."""

import asyncio
import json
from typing import Any, NoReturn

import httpx
import pytest
from prometheus_client import CollectorRegistry

from connectors.config.connections import lago_connections
from connectors.config.settings import load_settings
from connectors.processes import worker_parts
from connectors.telemetry.metrics import Metrics
from streams.components import Components
from streams.core.delivery.batches import Item


def parts(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Components:
    def no_delivery() -> NoReturn:
        raise AssertionError("nothing is posted")

    monkeypatch.setattr(worker_parts, "check_topics", lambda _kafka, *_, **__: [])
    monkeypatch.setattr(worker_parts, "topic_ids", lambda _kafka, names, _limit_s: dict.fromkeys(names, "id"))
    return worker_parts.parts_of(load_settings(environ), no_delivery, Metrics(CollectorRegistry(), "0"))


@pytest.mark.parametrize(
    ("variable", "value", "show", "by_default", "as_set"),
    [
        (
            "KAFKA_BOOTSTRAP_SERVERS",
            "a:1,b:2",
            lambda made: (made.kafka["bootstrap_servers"], made.broker),
            ("localhost:9092", "kafka://localhost:9092"),
            ("a:1,b:2", "kafka://a:1;b:2"),
        ),
        ("KAFKA_PARTITIONS", "3", lambda made: made.partitions, 12, 3),
        ("TOPIC_PREFIX", "acme.", lambda made: made.topics.raw, "litellm.usage.raw", "acme.litellm.usage.raw"),
        ("TOPIC_PREFIX", "acme.", lambda made: made.group("sink"), "meterbridge-sink", "acme.meterbridge-sink"),
        ("DEPLOYMENT_NAME", "eu-1", lambda made: made.group("sink"), "meterbridge-sink", "eu-1-sink"),
        ("DEPLOYMENT_NAME", "eu-1", lambda made: made.policy.deployment, "meterbridge", "eu-1"),
        ("POD_NAME", "meter-0", lambda made: made.instance_id, "", "meter-0"),
        ("MAPPING_DELAY_SECONDS", "2", lambda made: made.mapping_delay_s, 5.0, 2.0),
        ("MAPPING_DELAY_SECONDS", "60", lambda made: made.mapping_delay_s, 5.0, 5.0),
        ("MAX_RETRIES", "5", lambda made: made.max_retries, 3, 5),
        ("HELD_IN_MEMORY", "500", lambda made: made.held_in_memory, 10_000, 500),
        ("RETRY_DELAY", "1.5", lambda made: made.retry_delay_s, 60.0, 1.5),
    ],
)
def test_each_variable_changes_the_role_that_is_built(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, show: Any, by_default: Any, as_set: Any
) -> None:
    assert show(parts(monkeypatch)) == by_default
    assert show(parts(monkeypatch, **{variable: value})) == as_set


def test_a_role_decides_by_the_policy_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's variables: test_meter_settings.py."""
    environ = {"WINDOW_SECONDS": "0", "COST_DECIMALS": "6", "OUT_OF_PERIOD_POLICY": "hold"}
    assert parts(monkeypatch, **environ).policy == load_settings(environ).meter_policy()


async def posted(**environ: str) -> tuple[list[int], int, set[str]]:
    """Six partition tasks post 120 events each: the sizes of the batches, the maximum of concurrent requests, and each
    request's address and key.
    """
    sizes, flying, most, seen = list[int](), 0, 0, set[str]()

    async def lago(request: httpx.Request) -> httpx.Response:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.01)
        flying -= 1
        events = json.loads(request.content)["events"]
        sizes.append(len(events))
        seen.add(f"{request.url.scheme}://{request.url.host}:{request.url.port} {request.headers.get('authorization')}")
        return httpx.Response(200, json={"events": events})

    async with httpx.AsyncClient(transport=httpx.MockTransport(lago)) as http:
        metrics = Metrics(CollectorRegistry(), "0")
        settings = load_settings(environ)
        [connection] = lago_connections(settings)
        delivery, _ = worker_parts._delivery(connection, settings.batch_size, http, metrics)
        names = [[f"{partition_task}-{n}" for n in range(120)] for partition_task in range(6)]
        partition_tasks = [
            [Item(name, b'{"transaction_id":"%b"}' % name.encode(), resent=False) for name in one] for one in names
        ]
        for outcomes in await asyncio.gather(*map(delivery.deliver, partition_tasks)):
            assert {outcome.kind for outcome in outcomes} == {"delivered"}
    return sizes, most, seen


async def test_lago_gets_batches_of_batch_size() -> None:
    assert sorted(set((await posted())[0])) == [20, 100]
    assert sorted(set((await posted(BATCH_SIZE="50"))[0])) == [20, 50]


async def test_no_more_requests_run_at_once_than_worker_concurrency() -> None:
    assert (await posted())[1] == 4
    assert (await posted(WORKER_CONCURRENCY="2"))[1] == 2


async def test_events_go_to_the_lago_in_the_settings_with_its_key() -> None:
    found = await posted(LAGO_API_URL="http://lago.example:3001", LAGO_API_KEY="k-1")
    assert found[2] == {"http://lago.example:3001 Bearer k-1"}
