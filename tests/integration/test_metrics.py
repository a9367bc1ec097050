"""The metrics under the names that dashboards and scripts use, and totals that survive a restart."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import msgspec
import pytest
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from connectors.config.settings import Settings
from connectors.ingest.routes import ROUTES
from connectors.telemetry.ingress_metrics import SOURCES
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.metrics_server import start_metrics_server
from connectors.telemetry.worker_sensors import LOOK_EVERY_S, WorkerSensors
from schemas.errors import ConfigurationError
from schemas.ledger import Counters, Position, Sum, Window
from schemas.records import Receipt
from schemas.topics import RECEIPTS
from streams.core.delivery.circuit_breaker import State
from streams.core.mapping.held_reasons import HELD_REASONS, NO_MAPPING, NO_SUBSCRIPTION
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka
from tests.support.metric_types import TYPES
from tests.support.server import Server, running_server, settings_for


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scrape:
    """Metrics in their own registry, read like by a scraper."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.clock = Clock()
        self.sensors = WorkerSensors(self.metrics, self.clock)

    def text(self) -> str:
        return generate_latest(self.metrics.registry).decode()

    def value(self, name: str, **labels: str) -> float | None:
        return value_in(self.text(), name, **labels)


def value_in(text: str, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def held(first: int, reason: str, calls: int, cost: str) -> Window:
    customer, subscription = f"customer-{first}", "" if reason else "sub"
    return Window(
        first,
        first,
        customer,
        "user",
        "",
        subscription,
        reason,
        "m",
        "p",
        (),
        first,
        1,
        0,
        0,
        calls,
        cost=Decimal(cost),
    )


def ledgers_of(*windows: Window, seal_seq: int = 0, **off_by: Sum) -> LedgerState:
    """Ledgers with these windows that add up, except for `off_by` on the counters of those names."""
    sums = [Sum(window.count, window.cost) for window in windows]
    folded = Sum(sum(one.calls for one in sums), sum((one.cost for one in sums), Decimal(0)))
    counters = {"received": folded, "folded": folded}
    for name, more in off_by.items():
        counters[name] = Sum(counters[name].calls + more.calls, counters[name].cost + more.cost)
    ledger = LedgerState(Position(seal_seq=seal_seq, counters=Counters(**counters)))
    for window in windows:
        ledger.put(window, 0)
    return ledger


def test_every_metric_has_its_name_and_type_from_the_start() -> None:
    text = Scrape().text()
    found = dict(line.split(" ")[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert {name: kind for name, kind in found.items() if not name.endswith("_created")} == TYPES
    assert value_in(text, "meterbridge_build_info", version="1.2.3") == 1


def test_series_of_closed_label_sets_start_at_zero() -> None:
    """`increase()` misses the first sample of a new series."""
    scrape = Scrape()
    for source in SOURCES:
        assert scrape.value("webhook_requests_total", source=source, status="503") == 0
    for name, labels in (
        ("meterbridge_calls_total", {"decision": "duplicate"}),
        ("meterbridge_ingress_elements_total", {"outcome": "not_json"}),
        ("failed_events_total", {"error_type": "too_large"}),
        ("meterbridge_ledger_imbalance", {"law": "folded", "unit": "usd"}),
        ("meterbridge_held_calls", {"reason": "no_mapping"}),
        ("meterbridge_held_cost_usd", {"reason": "currency"}),
        ("meterbridge_event_transitions_total", {"status": "failed"}),
    ):
        assert scrape.value(name, **labels) == 0, name
    assert {route.source for route in ROUTES} <= set(SOURCES)


def test_a_folded_batch_is_counted_by_decision_and_by_reason_of_rejection() -> None:
    scrape = Scrape()
    scrape.sensors.folded(
        0, Changes(Position(), decisions={"billable": 5, "rejected:bad_cost": 2, "duplicate": 1}), 0.1
    )
    assert scrape.value("meterbridge_calls_total", decision="billable") == 5
    assert scrape.value("meterbridge_calls_total", decision="rejected") == 2
    assert scrape.value("failed_events_total", error_type="bad_cost") == 2
    assert scrape.value("event_processing_duration_seconds_count") == 1


def test_sealed_parts_are_counted_once_wherever_the_number_was_seen() -> None:
    scrape = Scrape()
    scrape.sensors.ledger(0, ledgers_of(seal_seq=100))
    scrape.sensors.folded(0, Changes(Position(seal_seq=103)), 0.1)
    scrape.sensors.ledger(0, ledgers_of(seal_seq=103))
    scrape.sensors.ledger(0, ledgers_of(seal_seq=104))
    scrape.sensors.ledger(0, None)
    scrape.sensors.ledger(0, ledgers_of(seal_seq=900))
    assert scrape.value("meterbridge_events_emitted_total") == 4
    assert scrape.value("meterbridge_event_transitions_total", status="pending") == 4


def test_held_usage_is_shown_by_reason_with_its_amount_over_all_ledgers() -> None:
    scrape = Scrape()
    scrape.sensors.ledger(
        0, ledgers_of(held(1, NO_MAPPING, 3, "0.25"), held(2, NO_MAPPING, 1, "1"), held(3, "", 7, "9"))
    )
    scrape.sensors.ledger(1, ledgers_of(held(4, NO_MAPPING, 1, "2"), held(5, NO_SUBSCRIPTION, 2, "4")))
    assert scrape.value("meterbridge_held_calls", reason=NO_MAPPING) == 5
    assert scrape.value("meterbridge_held_cost_usd", reason=NO_MAPPING) == 3.25
    assert scrape.value("meterbridge_held_calls", reason=NO_SUBSCRIPTION) == 2
    assert [scrape.value(f"meterbridge_{name}") for name in ("open_windows", "held_windows")] == [1, 4]
    assert scrape.value("meterbridge_ledgers_open") == 2
    scrape.sensors.ledger(0, None)
    scrape.sensors.ledger(1, None)
    assert all(scrape.value("meterbridge_held_calls", reason=reason) == 0 for reason in HELD_REASONS)
    assert scrape.value("meterbridge_ledgers_open") == scrape.value("meterbridge_held_windows") == 0


def test_the_ledger_imbalance_is_zero_until_a_ledger_does_not_add_up_and_errors_never_cancel() -> None:
    scrape = Scrape()
    sound = ledgers_of(held(1, NO_MAPPING, 3, "0.25"))
    scrape.sensors.ledger(0, sound)
    for law in ("received", "folded"):
        assert scrape.value("meterbridge_ledger_imbalance", law=law, unit="calls") == 0
        assert scrape.value("meterbridge_ledger_imbalance", law=law, unit="usd") == 0
    scrape.sensors.ledger(1, ledgers_of(received=Sum(1, Decimal("0.5"))))
    scrape.sensors.ledger(2, ledgers_of(received=Sum(-1, Decimal("-0.25")), folded=Sum(2)))
    assert scrape.value("meterbridge_ledger_imbalance", law="received", unit="calls") == 1 + 3
    assert scrape.value("meterbridge_ledger_imbalance", law="received", unit="usd") == 0.75
    assert scrape.value("meterbridge_ledger_imbalance", law="folded", unit="calls") == 2


def test_all_windows_are_read_every_five_seconds_and_sizes_are_shown_at_once() -> None:
    scrape = Scrape()
    ledger = ledgers_of(held(1, NO_MAPPING, 1, "1"))
    scrape.sensors.ledger(0, ledger)
    ledger.put(held(2, NO_MAPPING, 1, "1"), 0)
    ledger.seen.add(bytes(range(32)), 1)
    scrape.clock.now = LOOK_EVERY_S - 0.1
    scrape.sensors.ledger(0, ledger)
    assert scrape.value("meterbridge_held_calls", reason=NO_MAPPING) == 1
    assert [scrape.value(f"meterbridge_{name}") for name in ("held_windows", "dedupe_identities")] == [2, 2]
    scrape.clock.now = LOOK_EVERY_S
    scrape.sensors.ledger(0, ledger)
    assert scrape.value("meterbridge_held_calls", reason=NO_MAPPING) == 2


def test_dead_letters_count_as_failed_events_and_halted_partitions_and_fetch_gaps_are_shown() -> None:
    scrape = Scrape()
    scrape.sensors.settled([Receipt("a", "completed", 1), Receipt("b", "failed", 1, reason="lago_refused")])
    scrape.sensors.partition_halted("raw", 3, "offset_out_of_range")
    scrape.sensors.fetch_gap("raw", 3, 2)
    assert scrape.value("meterbridge_event_transitions_total", status="completed") == 1
    assert scrape.value("failed_events_total", error_type="lago_refused") == 1
    assert scrape.value("failed_events_total", error_type="") is None
    assert scrape.value("meterbridge_partition_halted", topic="raw", partition="3", reason="offset_out_of_range") == 1
    assert scrape.value("meterbridge_fetch_gaps_total", topic="raw") == 2


def test_requests_to_lago_are_counted_by_method_and_status_and_the_breaker_is_shown() -> None:
    scrape, state = Scrape(), State.CLOSED
    scrape.metrics.watch_breaker(lambda: state)
    for state, number in ((State.CLOSED, 0), (State.HALF_OPEN, 1), (State.OPEN, 2)):  # noqa: B007  # read by the lambda
        assert scrape.value("meterbridge_lago_breaker_state") == number
    scrape.metrics.lago_requested("post_batch", "POST", 200, 0.1)
    scrape.metrics.lago_requested("get_event", "GET", 0, 0.1)
    assert scrape.value("lago_api_requests_total", method="POST", status="200") == 1
    assert scrape.value("lago_api_requests_total", method="GET", status="0") == 1
    scrape.metrics.watch_lago(lambda: True, lambda: False, lambda: 500.0)
    assert scrape.value("meterbridge_lago_idempotent") == 1
    assert scrape.value("meterbridge_lago_too_old") == 0
    assert scrape.value("meterbridge_lago_rate_limit") == 500
    scrape.metrics.watch_table("orgs", lambda: 1.5)
    assert scrape.value("meterbridge_table_staleness_seconds", table="orgs") == 1.5


def test_the_metrics_port_is_served_and_a_port_in_use_is_named() -> None:
    scrape = Scrape()
    server = start_metrics_server(scrape.metrics.registry, "127.0.0.1", 0)
    try:
        answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False)
        assert "pending_events_total 0.0" in answer.text
        with pytest.raises(ConfigurationError, match=f"METRICS_PORT {server.port} on 127.0.0.1 cannot be used"):
            start_metrics_server(scrape.metrics.registry, "127.0.0.1", server.port)
    finally:
        server.stop()


@asynccontextmanager
async def half_a_body(server: Server, size: int) -> AsyncIterator[None]:
    """A sender that has announced `size` bytes, sent one, and leaves at the end of the block."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.ports["webhooks"])
    writer.write(
        b"POST /webhook/litellm/usage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer webhook-token\r\n"
        b"Content-Length: %d\r\n\r\n{" % size
    )
    try:
        yield
    finally:
        writer.close()
        await writer.wait_closed()


async def inflight(server: Server, expected: int) -> None:
    """Wait until this number of bytes of bodies is unanswered."""
    deadline = time.monotonic() + 15 * PATIENCE
    while (
        value_in(text := (await server.http.get("/metrics/prometheus")).text, "meterbridge_ingress_body_bytes_inflight")
        != expected
    ):
        assert time.monotonic() < deadline, text
        await asyncio.sleep(0.02)


async def test_webhooks_are_counted_by_source_and_status_and_their_elements_by_outcome(
    kafka: Kafka, topic_prefix: str
) -> None:
    settings = settings_for(kafka, topic_prefix, webhook_token="webhook-token")
    sender = {"Authorization": "Bearer webhook-token"}
    async with running_server(settings) as server:
        call = '{"id":"1","user":"u","spend":1}'
        bodies = (("/webhook/litellm/usage", f"[{call},null,7]"), ("/api/v1/events", '{"event":{}}'))
        for path, body in bodies:
            assert (await server.http.post(path, content=body, headers=sender)).status_code == 202
        assert (await server.http.post("/webhook/litellm/usage", content="{", headers=sender)).status_code == 400
        assert (await server.http.post("/webhooks/litellm", content="{}")).status_code == 401
        async with half_a_body(server, 900):
            await inflight(server, 900)
        await inflight(server, 0)
        text = (await server.http.get("/metrics/prometheus")).text
    assert value_in(text, "webhook_requests_total", source="litellm", status="202") == 1
    assert value_in(text, "webhook_requests_total", source="litellm", status="400") == 1
    assert value_in(text, "webhook_requests_total", source="integration", status="401") == 1
    assert value_in(text, "webhook_requests_total", source="lago", status="202") == 1
    assert value_in(text, "meterbridge_ingress_elements_total", outcome="accepted") == 1
    assert value_in(text, "meterbridge_ingress_elements_total", outcome="ignored") == 1
    assert value_in(text, "failed_events_total", error_type="not_an_object") == 1
    assert value_in(text, "failed_events_total", error_type="not_a_call") == 1
    assert value_in(text, "failed_events_total", error_type="not_json") == 1
    assert value_in(text, "webhook_requests_total", source="litellm", status="499") == 1
    assert value_in(text, "meterbridge_ingress_request_duration_seconds_count") == 5


def write_receipts(settings: Settings, *receipts: Receipt) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"})
    for receipt in receipts:
        topic, value = settings.topic_prefix + RECEIPTS.name, msgspec.json.encode(receipt)
        producer.produce(topic, value, receipt.transaction_id)
    assert producer.flush(20 * PATIENCE) == 0


async def totals_of(server: Server, **expected: int) -> None:
    """Polls `/metrics` until it shows what is expected."""
    deadline = time.monotonic() + 15 * PATIENCE
    while (answer := await server.http.get("/metrics")).status_code != 200 or answer.json() != expected:
        assert time.monotonic() < deadline, answer.text


async def test_totals_count_every_event_once_in_its_latest_state_and_survive_a_restart(
    kafka: Kafka, topic_prefix: str
) -> None:
    settings = settings_for(kafka, topic_prefix)
    at = time.time_ns() // 1000
    write_receipts(settings, *(Receipt(f"event-{number}", "pending", at) for number in range(1000)))
    write_receipts(settings, *(Receipt(f"event-{number}", "completed", at) for number in range(950)))
    write_receipts(settings, *(Receipt(f"event-{number}", "failed", at) for number in range(950, 980)))
    write_receipts(settings, *(Receipt(f"event-{number}", "completed", at) for number in range(100)))
    before = {"total_events": 1000, "completed_events": 950, "failed_events": 30, "pending_events": 20}
    async with running_server(settings) as server:
        await totals_of(server, **before, active_customers=0)
        await server.map("customer-1")
        await server.map("customer-2")
        await server.map("customer-3", is_active=False)
        await server.map("meterbridge-canary")  # is no customer
        write_receipts(settings, Receipt("event-999", "completed", at))
        after = {"total_events": 1000, "completed_events": 951, "failed_events": 30, "pending_events": 19}
        await totals_of(server, **after, active_customers=2)
    async with running_server(settings, ["api"]) as server:
        await totals_of(server, **after, active_customers=2)
        deadline = time.monotonic() + 15 * PATIENCE
        while value_in(text := (await server.http.get("/metrics/prometheus")).text, "pending_events_total") != 19:
            assert time.monotonic() < deadline, text
        assert value_in(text, "active_customers_total") == 2
