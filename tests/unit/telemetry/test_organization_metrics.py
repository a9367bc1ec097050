"""The metrics of further Lago organisations."""

import time

from prometheus_client import CollectorRegistry

from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from streams.core.delivery.circuit_breaker import State


def test_each_organisation_has_its_own_state_answers_and_wait() -> None:
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    sensors = WorkerSensors(metrics, time.monotonic)
    states = {"eu": State.CLOSED, "us": State.OPEN}
    for name, state in states.items():
        metrics.watch_organization(name, lambda state=state: state)  # type: ignore[misc]

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert (
        value("meterbridge_lago_organization_breaker_state", organization="eu"),
        value("meterbridge_lago_organization_breaker_state", organization="us"),
    ) == (0, 2)
    requested = metrics.requested_of("eu")
    assert value("meterbridge_lago_organization_requests_total", organization="eu", status="401") == 0
    requested("post_batch", "POST", 401, 0.1)
    assert value("meterbridge_lago_organization_requests_total", organization="eu", status="401") == 1
    assert metrics.registry.get_sample_value("lago_api_requests_total", {"method": "POST", "status": "401"}) in (
        None,
        0,
    )
    metrics.requested_of("")("post_batch", "POST", 401, 0.1)
    assert metrics.registry.get_sample_value("lago_api_requests_total", {"method": "POST", "status": "401"}) == 1
    assert value("meterbridge_lago_organization_waiting_seconds", organization="eu") == 0
    now_ms = time.time_ns() // 1_000_000
    sensors.lane_waits("eu", "events", 0, lambda: now_ms - 60_000)
    sensors.lane_waits("eu", "events", 1, lambda: now_ms - 90_000)
    waits = value("meterbridge_lago_organization_waiting_seconds", organization="eu")
    assert waits is not None and 90 <= waits < 150
    sensors.lane_waits("eu", "events", 1, None)
    sensors.lane_waits("eu", "events", 0, lambda: None)
    assert value("meterbridge_lago_organization_waiting_seconds", organization="eu") == 0
