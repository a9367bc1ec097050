"""A worker reports at METRICS_PORT whether it works, and the image's health check asks every role."""

import http.client
import json
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from connectors.cli.worker import roles_of
from connectors.config.settings import Settings, load_settings
from connectors.processes.container_health import Probe, address, ask, probes
from connectors.processes.server import API_ALONE_PORT
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.metrics_server import MetricsServer, start_metrics_server
from connectors.telemetry.worker_health import STUCK_S
from connectors.telemetry.worker_sensors import WorkerSensors
from tests.support.eventually import PATIENCE
from tests.support.ports import free_port

READY, LIVE = "/health/ready", "/health/live"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sensors(clock: Clock) -> WorkerSensors:
    return WorkerSensors(Metrics(CollectorRegistry(), "0"), clock)


@pytest.fixture
def server(sensors: WorkerSensors) -> Iterator[MetricsServer]:
    served = start_metrics_server(CollectorRegistry(), "127.0.0.1", 0, health=sensors.health)
    yield served
    served.stop()


def get(server: MetricsServer, path: str) -> tuple[int, object]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5 * PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


def test_a_worker_is_ready_once_its_role_runs_and_not_while_a_partition_is_halted(
    sensors: WorkerSensors, server: MetricsServer
) -> None:
    assert get(server, READY) == (503, {"status": "starting"})
    sensors.health.begun()
    assert get(server, READY) == (200, {"status": "ok"})
    sensors.partition_halted("raw", 3, "offset_gap")
    sensors.partition_halted("raw", 1, "offset_out_of_range")
    halted = [
        {"topic": "raw", "partition": n, "reason": why} for n, why in ((1, "offset_out_of_range"), (3, "offset_gap"))
    ]
    assert get(server, READY) == (503, {"status": "halted", "partitions": halted})
    assert get(server, LIVE) == (200, {"status": "ok"}), "to start it again would change nothing"
    sensors.partition_resumed("raw", 1, "offset_out_of_range")
    sensors.partition_resumed("raw", 3, "offset_gap")
    assert get(server, READY) == (200, {"status": "ok"})


def test_a_partition_that_several_tasks_have_halted_shows_every_reason(sensors: WorkerSensors) -> None:
    """There is one partition task for each Lago organisation: one that runs does not hide one that is halted."""
    for reason in ("unknown_organization", "offset_gap", "unknown_organization"):
        sensors.partition_halted("events", 3, reason)
    sensors.partition_halted("events", 1, "offset_gap")
    assert sensors.health.halts() == {("events", 3): "offset_gap, unknown_organization", ("events", 1): "offset_gap"}
    sensors.partition_resumed("events", 3, "offset_gap")
    sensors.partition_resumed("events", 3, "unknown_organization")
    assert sensors.health.halts()["events", 3] == "unknown_organization", "one of two lanes goes on"


def test_a_worker_whose_event_loop_is_blocked_is_not_alive(clock: Clock, server: MetricsServer) -> None:
    clock.now = STUCK_S
    assert get(server, LIVE) == (200, {"status": "ok"})
    clock.now = STUCK_S + 1
    assert get(server, LIVE) == (503, {"status": "event_loop_blocked"})


def test_every_other_path_returns_the_metrics(server: MetricsServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5 * PATIENCE)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    assert "text/plain" in str(answer.headers["Content-Type"])


def ready(*ports: int) -> list[Probe]:
    return [Probe(port, READY) for port in ports]


@pytest.mark.parametrize(
    ("words", "environ", "asked"),
    [
        ("serve", {}, ready(8080)),
        ("serve --only webhooks", {"PORT": "81"}, ready(81)),
        ("serve --only api", {"PORT": "81"}, ready(API_ALONE_PORT)),
        ("serve --only=api", {"API_PORT": "82"}, ready(82)),
        ("worker --only project", {}, ready(9090)),
        ("worker --only meter,sink,retry", {"METRICS_PORT": "90"}, ready(90, 91, 92)),
        ("worker", {"METRICS_PORT": "90", "POSTGRES_HOST": ""}, ready(90, 91, 92)),
        ("worker", {"METRICS_PORT": "90", "POSTGRES_HOST": "db"}, ready(90, 91, 92, 93)),
        ("lago-sandbox --host 0.0.0.0 --port 3001", {}, [Probe(3001, "/health")]),
        ("topics create", {}, []),
        ("db migrate", {}, []),
    ],
)
def test_a_containers_role_is_found_from_its_command(words: str, environ: dict[str, str], asked: list[Probe]) -> None:
    """For each way of starting it: a shell, an init process, Python itself."""
    for before in (["/opt/bin/python", "/opt/bin/meterbridge"], ["/sbin/docker-init", "--", "meterbridge"]):
        assert probes([*before, *words.split(), ""], environ) == asked


@pytest.mark.parametrize("database", [{}, {"DATABASE_URL": "postgresql://u@h/d"}, {"POSTGRES_HOST": "h"}])
def test_a_worker_of_all_roles_is_asked_for_as_many_as_it_starts(database: dict[str, str]) -> None:
    assert len(probes(["worker"], database)) == len(roles_of(load_settings(database)))


def test_a_worker_that_cannot_be_asked_counts_as_unhealthy() -> None:
    with pytest.raises(ValueError, match="METRICS_PORT is 0"):
        probes(["worker"], {"METRICS_PORT": "0"})


def test_the_default_ports_are_those_of_the_settings() -> None:
    default = Settings()
    assert probes(["serve"], {}) == ready(default.port)
    assert probes(["worker", "--only", "meter"], {}) == ready(default.metrics_port)


def test_the_reason_of_a_failure_is_printed(sensors: WorkerSensors, server: MetricsServer) -> None:
    probe = Probe(server.port, READY)
    sensors.health.begun()
    assert ask(probe, "127.0.0.1") == ""
    sensors.partition_halted("raw", 3, "offset_gap")
    assert '"partition":3,"reason":"offset_gap"' in ask(probe, "127.0.0.1")
    assert "refused" in ask(Probe(free_port(), READY), "127.0.0.1")


def test_a_server_is_asked_at_its_own_address() -> None:
    found = [address({"HOST": host}) for host in ("", "0.0.0.0", "::", "10.1.2.3")]
    assert found == ["127.0.0.1", "127.0.0.1", "::1", "10.1.2.3"]
