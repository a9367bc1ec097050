"""The state of providers follows the calls in the log: down after failures, up after successes, shown over HTTP."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from connectors.operations import provider_health
from connectors.operations.provider_health import ProviderHealth
from connectors.postgres.pool import Database
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.context import CallContext
from tests.integration.test_analytics import call
from tests.support.accounts import PROJECTOR, as_role, owned_database
from tests.support.database import rows
from tests.support.history import TOPICS
from tests.support.kafka import Kafka
from tests.support.projection import Writer
from tests.support.server import BEARER, running_server, settings_for

PATH = "/api/v1/providers/health"


class Calls:
    """Calls of the present, one after the other."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.number = 0

    async def put(self, count: int, error: str = "", code: str = "", **fields: Any) -> None:
        created = []
        for _ in range(count):
            self.number += 1
            at = datetime.now(UTC) - timedelta(seconds=300) + timedelta(milliseconds=self.number)
            failed = (
                {"status": "failure", "decision": "failed_call", "cost_usd": Decimal(0), "part": ""} if error else {}
            )
            context = CallContext(error_class=error, error_code=code) if error else None
            created.append(
                call(self.number, at, 0.5, context, **{"provider": "openai", "model": "m", **failed, **fields})
            )
        await self.writer.put(TOPICS.enriched, *created)


async def states(url: str) -> dict[str, tuple[str, int, int, int]]:
    columns = "model, status, calls, consecutive_failures, rate_limited"
    found = await rows(url, f"SELECT {columns} FROM provider_health ORDER BY model")
    return {model: (status, calls, in_a_row, limited) for model, status, calls, in_a_row, limited in found}


async def test_a_provider_that_fails_is_down_until_it_answers_again(url: str) -> None:
    shown: list[dict[str, int]] = []
    async with Writer(url) as writer:
        calls = Calls(writer)
        with Database(url, size=1) as database:
            health = ProviderHealth(database, show=lambda counts: shown.append(dict(counts)), failed=lambda _: None)
            await calls.put(20)
            await calls.put(2, "RateLimitError", "429")
            await health.once()
            assert await states(url) == {"m": ("healthy", 22, 2, 2)}
            since = await rows(url, "SELECT since FROM provider_health")
            await calls.put(3, "InternalServerError", "500")
            await health.once()
            assert await states(url) == {"m": ("down", 25, 5, 2)}
            assert await rows(url, "SELECT since FROM provider_health") > since
            await calls.put(1)
            await health.once()
            assert await states(url) == {"m": ("degraded", 26, 0, 2)}
            await calls.put(100)
            await health.once()
            assert await states(url) == {"m": ("healthy", 126, 0, 2)}
    assert [counts["down"] for counts in shown] == [0, 1, 0, 0]
    [row] = await rows(url, "SELECT success_rate, avg_latency_ms, p95_latency_ms FROM provider_health")
    assert row == (Decimal("0.960317"), Decimal(500), Decimal(500))


async def test_a_callers_errors_and_cached_answers_say_nothing_about_the_provider(url: str) -> None:
    async with Writer(url) as writer:
        calls = Calls(writer)
        await calls.put(1)
        await calls.put(20, "AuthenticationError", "401")
        await calls.put(20, "BadRequestError", "400")
        await calls.put(20, "BudgetExceededError", "429")
        await calls.put(20, decision="cache_hit")
        await calls.put(5, "Timeout", "408", model="other")
        await calls.put(5, provider="")
    with Database(url, size=1) as database:
        await ProviderHealth(database, show=lambda _answer: None, failed=lambda _: None).once()
    assert await states(url) == {"m": ("healthy", 1, 0, 0), "other": ("down", 5, 5, 0)}
    found = await rows(url, "SELECT error_category, count(*) FROM llm_usage_log GROUP BY 1 ORDER BY 1 NULLS FIRST")
    assert found == [(None, 26), ("auth", 20), ("client", 40), ("timeout", 5)]


async def test_without_calls_a_provider_that_was_down_is_tried_again_and_an_old_one_is_forgotten(url: str) -> None:
    for model, status, days in (("a", "down", 1), ("b", "healthy", 1), ("c", "down", 8)):
        await rows(
            url,
            "INSERT INTO provider_health (provider, model, status, since, calls, last_call_at) "
            f"VALUES ('p', '{model}', '{status}', now(), 1, now() - interval '{days} days')",
        )
    with Database(url, size=1) as database:
        await ProviderHealth(database, show=lambda _answer: None, failed=lambda _: None).once()
    assert await states(url) == {"a": ("degraded", 0, 0, 0), "b": ("healthy", 0, 0, 0)}


async def test_the_projectors_role_judges_its_metric_counts_and_the_endpoint_shows(
    kafka: Kafka, topic_prefix: str, postgres_url: str
) -> None:
    metrics = Metrics(CollectorRegistry(), "1")
    async with owned_database(postgres_url) as owned:
        own = as_role(owned, PROJECTOR)
        async with Writer(own) as writer:
            await Calls(writer).put(5, "InternalServerError", "500")
        with Database(own, size=1) as database:
            sensors = WorkerSensors(metrics, lambda: 0.0)
            await ProviderHealth(database, show=sensors.providers, failed=lambda _: None).once()
        assert metrics.registry.get_sample_value("meterbridge_providers", {"status": "down"}) == 1
        settings = settings_for(kafka, topic_prefix, database_url=SecretStr(owned))
        async with running_server(settings, ("api",)) as server:
            assert (await server.http.get(PATH)).status_code == 401
            [result] = (await server.http.get(PATH, headers=BEARER)).json()["providers"]
    assert {name: result[name] for name in ("provider", "model", "status", "calls", "success_rate")} == {
        "provider": "openai",
        "model": "m",
        "status": "down",
        "calls": 5,
        "success_rate": "0",
    }


async def test_of_invented_names_only_the_most_used_are_judged(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_health, "MOST_PAIRS", 3)
    async with Writer(url) as writer:
        calls = Calls(writer)
        await calls.put(5, model="used")
        await calls.put(5, "InternalServerError", "500", model="broken")
        with Database(url, size=1) as database:
            health = ProviderHealth(database, show=lambda _: None, failed=lambda _: None)
            await health.once()
            for number in range(10):
                await calls.put(1, model=f"invented-{number}")
                await health.once()
                await rows(
                    url, "UPDATE llm_usage_log SET ended_at = ended_at - interval '1 hour' WHERE model LIKE 'inv%'"
                )
    found = await states(url)
    assert len(found) == 3 and found["used"][0] == "healthy" and found["broken"][0] == "down"
