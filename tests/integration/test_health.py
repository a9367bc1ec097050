"""Health: alive, ready to store, and the state of each service; and a server starts and stops as documented."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from connectors.config.settings import Settings
from connectors.http.health import Dependency, Health
from connectors.http.middleware import RequestTracker, create_app
from connectors.processes.server import API, API_ALONE_PORT, PARTS, WEBHOOKS, _listeners, serving
from schemas.errors import ConfigurationError, TopicProblem, Unavailable
from tests.support.eventually import PATIENCE, eventually
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.sandbox import lago_sandbox
from tests.support.server import running_server, settings_for

UNREACHABLE = "127.0.0.1:1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def client_of(app: web.Application) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_health_is_ok_if_every_service_is(kafka: Kafka, topic_prefix: str) -> None:
    async with (
        lago_sandbox() as lago,
        running_server(settings_for(kafka, topic_prefix, lago_api_url=lago.url)) as server,
    ):
        answer = await server.http.get("/health")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["status"], sorted(body["dependencies"])) == ("ok", ["kafka", "lago"])
        for state in body["dependencies"].values():
            assert (state["status"], state["last_error"]) == ("ok", None)
            assert 0 <= state["latency_ms"] < 5000
        for path in ("/health/live", "/health/ready"):
            assert (await server.http.get(path)).status_code == 200
        texts = [(await server.http.get(path)).text for path in ("/health/metrics", "/metrics/prometheus")]
        assert all("# TYPE webhook_requests_total counter" in text for text in texts)


async def test_without_lago_usage_is_still_accepted(kafka: Kafka, topic_prefix: str) -> None:
    """Lago may be unavailable for hours: then `degraded`, but ready."""
    async with running_server(settings_for(kafka, topic_prefix)) as server:
        answer = await server.http.get("/health")
        assert answer.status_code == 503
        body = answer.json()
        assert body["status"] == "degraded"
        assert body["dependencies"]["kafka"]["status"] == "ok"
        assert body["dependencies"]["lago"]["status"] == "down"
        assert body["dependencies"]["lago"]["last_error"]["error"].startswith("lago_unhealthy")
        assert (await server.http.get("/health/ready")).status_code == 200
        taken = await server.http.post("/webhook/litellm/usage", content=b'{"id":"1","user":"u","spend":1}')
        assert taken.status_code == 202


async def test_postgres_and_redis_are_listed_only_if_they_are_configured(
    kafka: Kafka, topic_prefix: str, postgres_url: str
) -> None:
    redis = f"redis://:secret@127.0.0.1:{free_port()}/0"
    settings = settings_for(kafka, topic_prefix, database_url=postgres_url, redis_url=redis)
    async with running_server(settings) as server:
        answer = await server.http.get("/health")
        states = answer.json()["dependencies"]
        assert sorted(states) == ["kafka", "lago", "postgres", "redis"]
        assert (states["postgres"]["status"], states["redis"]["status"]) == ("ok", "down")
        assert "secret" not in answer.text


async def test_while_kafka_is_unavailable_the_server_is_alive_and_answers_503() -> None:
    settings = Settings(kafka_bootstrap_servers=UNREACHABLE, port=0, metrics_port=0, allow_unauthenticated=True)
    async with serving(settings, PARTS) as served:
        port = served.ports[WEBHOOKS]
        async with http_client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            assert (await http.get("/health/live")).status_code == 200
            ready = await http.get("/health/ready")
            assert (ready.status_code, ready.json()["reason"]) == (503, "topics_unchecked")
            taken = await http.post("/webhook/litellm/usage", content=b'{"id":"1","user":"u","spend":1}')
            assert (taken.status_code, taken.headers["retry-after"]) == (503, "5")
            assert (await http.get("/metrics")).status_code == 503
        assert not served.life.done()


async def test_a_missing_topic_ends_the_server_with_its_name(kafka: Kafka, topic_prefix: str) -> None:
    settings = Settings(
        kafka_bootstrap_servers=kafka.bootstrap,
        topic_prefix=topic_prefix,
        port=0,
        metrics_port=0,
        allow_unauthenticated=True,
    )
    async with serving(settings, PARTS) as served:
        with pytest.raises(TopicProblem, match=f"{topic_prefix}.*`meterbridge topics create`"):
            await asyncio.wait_for(served.life, 20 * PATIENCE)


def test_a_port_is_shared_unless_api_port_says_otherwise() -> None:
    assert _listeners(Settings(), PARTS) == {8080: [WEBHOOKS, API]}
    assert _listeners(Settings(), [API]) == {3002: [API]}
    assert _listeners(Settings(api_port=3002), PARTS) == {8080: [WEBHOOKS], 3002: [API]}
    assert _listeners(Settings(port=80), PARTS) == {80: [WEBHOOKS, API]}
    assert _listeners(Settings(port=80, api_port=81), PARTS) == {80: [WEBHOOKS], 81: [API]}
    assert _listeners(Settings(port=80), [API]) == {API_ALONE_PORT: [API]}
    assert _listeners(Settings(port=80, api_port=81), [API]) == {81: [API]}
    assert _listeners(Settings(port=80, api_port=81), [WEBHOOKS]) == {80: [WEBHOOKS]}


async def test_each_port_serves_only_its_part(kafka: Kafka, topic_prefix: str) -> None:
    settings = settings_for(kafka, topic_prefix, port=free_port(), api_port=free_port())
    async with running_server(settings) as server:
        assert server.ports == {WEBHOOKS: settings.port, API: settings.api_port}
        api = f"http://127.0.0.1:{settings.api_port}"
        assert (await server.http.get("/customers/c/mapping")).status_code == 404
        assert (await server.http.get(f"{api}/customers/c/mapping")).status_code == 401
        assert (await server.http.post(f"{api}/webhook/litellm/usage", content=b"{}")).status_code == 404
        for url in ("/health/ready", f"{api}/health/ready"):
            assert (await server.http.get(url)).status_code == 200


async def test_webhooks_are_never_open_by_accident() -> None:
    settings = Settings(kafka_bootstrap_servers=UNREACHABLE, port=0, metrics_port=0)
    with pytest.raises(ConfigurationError, match="WEBHOOK_TOKEN"):
        async with serving(settings, PARTS):
            pass
    async with serving(settings.model_copy(update={"api_port": 0}), [API]) as served:
        assert served.ports[API]


async def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    settings = Settings(kafka_bootstrap_servers=UNREACHABLE, port=0, metrics_port=0, allow_unauthenticated=True)
    async with serving(settings, [WEBHOOKS]) as served:
        taken = served.ports[WEBHOOKS]
        for name, parts in (("PORT", [WEBHOOKS]), ("PORT", PARTS), ("API_PORT", [API])):
            with pytest.raises(ConfigurationError) as refused:
                async with serving(settings.model_copy(update={name.lower(): taken}), parts):
                    pass
            sentence = f"{name} {taken} on 127.0.0.1 cannot be used: Address already in use; stop the other program, or choose another port"
            assert (refused.value.reason, refused.value.detail) == (name, sentence)


async def test_a_dependency_is_asked_once_a_second_and_its_last_error_is_kept() -> None:
    clock, asked, trouble = Clock(), 0, ""

    async def probe() -> None:
        nonlocal asked
        asked += 1
        if trouble:
            raise Unavailable(trouble)

    dependency = Dependency(probe, clock, lambda: 0)
    states = await asyncio.gather(*(dependency.state() for _ in range(10)))
    assert asked == 1
    assert all(state == {"status": "ok", "latency_ms": 0.0, "last_error": None} for state in states)
    clock.now, trouble = 1.5, "away"
    result = {"at": "1970-01-01T00:00:00.000000Z", "error": "away"}
    assert await dependency.state() == {"status": "down", "latency_ms": 0.0, "last_error": result}
    clock.now, trouble = 3.0, ""
    assert await dependency.state() == {"status": "ok", "latency_ms": 0.0, "last_error": result}
    assert asked == 3


async def test_a_blocked_event_loop_is_not_alive() -> None:
    clock = Clock()
    health = Health({}, lambda: "", clock, CollectorRegistry())
    async with client_of(create_app(RequestTracker(), health.routes())) as client:
        assert (await client.get("/health/live")).status == 200
        clock.now = 5.5
        stuck = await client.get("/health/live")
        assert (stuck.status, (await stuck.json(content_type=None))["reason"]) == (503, "event_loop_blocked")
        health.start()
        await asyncio.sleep(0)
        assert (await client.get("/health/live")).status == 200
        await health.stop()


async def test_errors_are_problem_json_and_every_answer_has_the_requests_id() -> None:
    async def broken(_: web.Request) -> web.Response:
        raise KeyError("a secret")

    async def well(_: web.Request) -> web.Response:
        return web.Response(text="well")

    async with client_of(create_app(RequestTracker(), [web.get("/broken", broken), web.get("/well", well)])) as client:
        answer = await client.get("/well", headers={"X-Request-ID": "abc-1"})
        assert (answer.status, answer.headers["X-Request-ID"]) == (200, "abc-1")
        for method, path, status in (("GET", "/nowhere", 404), ("POST", "/broken", 405), ("GET", "/broken", 500)):
            answer = await client.request(method, path)
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
            assert (await answer.json(content_type=None))["status"] == status
            assert "secret" not in await answer.text()
            assert len(answer.headers["X-Request-ID"]) == 16
        assert (await client.post("/broken")).headers["Allow"] == "GET,HEAD"
        for given, kept in (("abc-1", True), ("x" * 65, False), ("a b", False)):
            answer = await client.get("/nowhere", headers={"X-Request-ID": given})
            assert (answer.headers["X-Request-ID"] == given) is kept


@contextmanager
def process(settings: Settings, *command: str) -> Iterator[subprocess.Popen[str]]:
    """`meterbridge` with these settings, killed at the end."""
    names = ("kafka_bootstrap_servers", "kafka_partitions", "topic_prefix", "lago_api_url", "port", "metrics_port")
    names += ("allow_unauthenticated", "api_port")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "LAGO_"))}
    given = {name.upper(): getattr(settings, name) for name in names}
    environ |= {name: str(value) for name, value in given.items() if value is not None}
    with subprocess.Popen(
        [sys.executable, "-m", "connectors", *command],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


async def test_on_sigterm_a_running_request_is_answered_and_the_process_ends_cleanly(
    kafka: Kafka, topic_prefix: str
) -> None:
    settings = settings_for(kafka, topic_prefix, port=free_port(), metrics_port=free_port())
    with process(settings, "serve") as running:

        def ready() -> bool:
            assert running.poll() is None
            try:
                return httpx.get(f"http://127.0.0.1:{settings.port}/health/ready", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        await asyncio.to_thread(eventually, ready, 30)
        metrics = f"http://127.0.0.1:{settings.metrics_port}/metrics"
        scraped = await asyncio.to_thread(httpx.get, metrics, trust_env=False)
        assert "meterbridge_build_info" in scraped.text
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        body = b'{"id":"1","user":"u","spend":1}'
        head = f"POST /webhook/litellm/usage HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:10])
        await writer.drain()
        await asyncio.sleep(0.3)  # the half must have arrived
        running.send_signal(signal.SIGTERM)

        def refuses() -> bool:
            try:
                httpx.get(f"http://127.0.0.1:{settings.port}/health/live", trust_env=False)
            except httpx.TransportError:
                return True
            return False

        await asyncio.to_thread(eventually, refuses, 5)
        writer.write(body[10:])
        assert (await asyncio.wait_for(reader.readline(), 5 * PATIENCE)).startswith(b"HTTP/1.1 202 ")
        writer.close()
        assert await asyncio.to_thread(running.wait, 10 * PATIENCE) == 0


@pytest.mark.parametrize(("only", "answers"), [("webhooks", [202, 404]), ("api", [404, 401])])
def test_a_command_for_one_part_serves_only_that_part(
    kafka: Kafka, topic_prefix: str, only: str, answers: list[int]
) -> None:
    """A usage webhook and a mapping are requested."""
    port = free_port()
    settings = settings_for(kafka, topic_prefix, port=port, api_port=port)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
    with process(settings, "serve", "--only", only) as running, http:

        def ready() -> bool:
            assert running.poll() is None
            try:
                return http.get("/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, 30)
        taken = http.post("/webhook/litellm/usage", content=b'{"id":"1","user":"u","spend":1}')
        result = [taken.status_code, http.get("/customers/c/mapping").status_code]
    assert result == answers


def test_a_command_that_cannot_start_gives_one_sentence(kafka: Kafka, topic_prefix: str) -> None:
    settings = Settings(
        kafka_bootstrap_servers=kafka.bootstrap,
        topic_prefix=topic_prefix,
        port=0,
        metrics_port=0,
        allow_unauthenticated=True,
    )
    with process(settings, "serve", "--only", "webhooks") as running:
        _, said = running.communicate(timeout=30 * PATIENCE)
    assert running.returncode == 1
    sentence = said.splitlines()[-1]
    assert sentence.startswith("meterbridge: ") and topic_prefix in sentence and "topics create`" in sentence
    assert "Traceback" not in said
    with process(settings, "topics", "check") as running:
        _, said = running.communicate(timeout=30 * PATIENCE)
    assert running.returncode == 1
    assert topic_prefix in said and "`meterbridge topics create`" in said
    away = settings.model_copy(update={"kafka_bootstrap_servers": "nonsense"})
    with process(away, "topics", "check") as running:
        _, said = running.communicate(timeout=30 * PATIENCE)
    assert (running.returncode, len(said.splitlines())) == (2, 1)
    assert said.startswith("meterbridge: KAFKA_BOOTSTRAP_SERVERS ")
