"""What changes the metrics that no other test reads, starting at the sensor that receives the cause."""

import time
from collections import Counter
from decimal import Decimal

import httpx
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from connectors.lago.client import LagoClient, LagoRejected
from connectors.lago.requests import NewCustomer, SubscriptionChange
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.ledger import Position
from schemas.reasons import DOUBLED, UNDEBITED
from schemas.records import Receipt
from streams.agents.projector import Projected
from streams.core.metering.step_changes import Changes


class Scrape:
    """The metrics of one worker."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.sensors = WorkerSensors(self.metrics, time.monotonic)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


def test_a_request_to_lago_is_timed_under_its_name(scrape: Scrape) -> None:
    scrape.metrics.lago_requested("post_batch", "POST", 200, 0.25)
    scrape.metrics.lago_requested("post_batch", "POST", 0, 0.5)
    scrape.metrics.lago_requested("get_event", "GET", 404, 1.0)
    assert scrape.value("meterbridge_lago_request_duration_seconds_count", request="post_batch") == 2
    assert scrape.value("meterbridge_lago_request_duration_seconds_sum", request="post_batch") == 0.75
    assert scrape.value("meterbridge_lago_request_duration_seconds_bucket", request="get_event", le="0.5") == 0
    assert scrape.value("meterbridge_lago_request_duration_seconds_bucket", request="get_event", le="1.0") == 1


async def test_a_request_to_lago_is_counted_under_the_http_method_that_was_sent(scrape: Scrape) -> None:
    sent: Counter[str] = Counter()

    def refused(request: httpx.Request) -> httpx.Response:
        sent[request.method] += 1
        return httpx.Response(422, json={"status": 422, "error": "Unprocessable Entity", "code": "validation_errors"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(refused)) as http:
        lago = LagoClient(http, "http://lago:3000", "key", scrape.metrics.lago_requested)
        for work in (
            lago.customer("acme"),
            lago.save_customer(NewCustomer(external_id="acme")),
            lago.update_subscription("acme_basic", SubscriptionChange(name="Basic")),
            lago.delete_customer("acme"),
        ):
            with pytest.raises(LagoRejected):
                await work
    assert set(sent) == {"GET", "POST", "PUT", "DELETE"}
    for method, number in sent.items():
        assert scrape.value("lago_api_requests_total", method=method, status="422") == number


def test_held_windows_billed_across_a_border_are_counted(scrape: Scrape) -> None:
    assert scrape.value("meterbridge_held_straddled_total") == 0
    scrape.sensors.straddled(0)
    scrape.sensors.straddled(2)
    assert scrape.value("meterbridge_held_straddled_total") == 2


def test_events_moved_to_a_later_billing_period_are_counted_by_when_they_were_moved(scrape: Scrape) -> None:
    scrape.sensors.sealed(Changes(Position(), shifted=3))
    scrape.sensors.settled([Receipt("a", "completed", 1, timestamp="1793491200.000"), Receipt("b", "completed", 1)])
    assert scrape.value("meterbridge_shifted_events_total", when="seal") == 3
    assert scrape.value("meterbridge_shifted_events_total", when="post") == 1


@pytest.mark.parametrize("kind", DOUBLED)
def test_pairs_that_the_projector_finds_are_counted_by_kind_from_zero_on(scrape: Scrape, kind: str) -> None:
    assert scrape.value("meterbridge_doubled_calls_total", kind=kind) == 0
    scrape.sensors.projected("enriched", Projected({}, {}, {kind: 2}))
    assert scrape.value("meterbridge_doubled_calls_total", kind=kind) == 2


@pytest.mark.parametrize("reason", UNDEBITED)
def test_a_call_that_names_an_account_without_a_debit_is_counted_by_reason(scrape: Scrape, reason: str) -> None:
    assert scrape.value("meterbridge_credits_undebited_calls_total", reason=reason) == 0
    scrape.sensors.projected("enriched", Projected({}, {}, undebited={reason: 2}))
    assert scrape.value("meterbridge_credits_undebited_calls_total", reason=reason) == 2


def test_late_calls_are_counted_by_their_outcome_and_an_error_once(scrape: Scrape) -> None:
    for outcome, calls in (("requeued", 3), ("known", 2), ("waiting", 1), ("failed", 0)):
        assert scrape.value("meterbridge_late_calls_total", outcome=outcome) == 0
        scrape.sensors.late_calls(outcome, calls)
        assert scrape.value("meterbridge_late_calls_total", outcome=outcome) == max(calls, 1)


def test_events_after_an_end_are_counted_and_waiting_ones_are_shown(scrape: Scrape) -> None:
    for outcome, events in (("rebilled", 3), ("given_up", 2), ("failed", 0)):
        scrape.sensors.rebilled(outcome, events)
        assert scrape.value("meterbridge_rebilled_events_total", outcome=outcome) == max(events, 1)
    scrape.sensors.after_end(2, Decimal("1.25"))
    shown = scrape.value("meterbridge_after_end_events"), scrape.value("meterbridge_after_end_usd")
    assert shown == (2, 1.25)


def test_a_customer_with_two_callbacks_is_counted_by_route_and_logged_with_its_name(scrape: Scrape) -> None:
    with capture_logs() as said:
        scrape.sensors.two_routes("acme", "lago", "litellm")
    assert scrape.value("meterbridge_two_routes_total", route="lago", other="litellm") == 1
    assert [(one["event"], one["customer"]) for one in said] == [("usage_by_two_routes", "acme")]


def test_a_table_that_is_followed_has_its_age(scrape: Scrape) -> None:
    age = [0.5]
    scrape.sensors.following("orgs", lambda: age[0])
    for age[0] in (0.5, 9.0):
        assert scrape.value("meterbridge_table_staleness_seconds", table="orgs") == age[0]


def test_a_partition_counts_as_halted_until_it_continues(scrape: Scrape) -> None:
    place = {"topic": "raw", "partition": "3", "reason": "offset_gap"}
    scrape.sensors.partition_halted("raw", 3, "offset_gap")
    assert scrape.value("meterbridge_partition_halted", **place) == 1
    scrape.sensors.partition_halted("raw", 3, "offset_gap")  # partition tasks of two organisations
    scrape.sensors.partition_resumed("raw", 3, "offset_gap")
    assert scrape.value("meterbridge_partition_halted", **place) == 1
    assert scrape.sensors.health.ready()["status"] == "halted"
    scrape.sensors.partition_resumed("raw", 3, "offset_gap")
    assert scrape.value("meterbridge_partition_halted", **place) == 0
    assert scrape.sensors.health.ready()["status"] != "halted"


def test_lagos_state_and_limits_are_shown_as_they_change(scrape: Scrape) -> None:
    safe, old, limit = False, True, 0.0
    scrape.metrics.watch_lago(lambda: safe, lambda: old, lambda: limit)
    names = [f"meterbridge_{name}" for name in ("lago_idempotent", "lago_too_old", "lago_rate_limit")]
    assert [scrape.value(name) for name in names] == [0, 1, 0]
    safe, old, limit = True, False, 500.0
    assert [scrape.value(name) for name in names] == [1, 0, 500]


def test_the_spool_is_shown_as_it_fills_and_drains(scrape: Scrape) -> None:
    depth = (3.0, 700.0, 12.5)
    scrape.metrics.watch_spool(lambda: depth[0], lambda: depth[1], lambda: depth[2])
    names = [f"meterbridge_{name}" for name in ("spool_records", "spool_bytes", "spool_oldest_seconds")]
    assert [scrape.value(name) for name in names] == [3, 700, 12.5]
    depth = (0.0, 0.0, 0.0)
    assert [scrape.value(name) for name in names] == [0, 0, 0]
