"""Usage that is not billed for a reason that a person can repair is logged once, and always counted."""

from decimal import Decimal

import pytest
import structlog
from prometheus_client import CollectorRegistry

from connectors.telemetry.metrics import Metrics
from connectors.telemetry.unbilled_usage import MOST_NAMES, UnbilledUsageMonitor
from schemas.ledger import Sum
from streams.core.metering.notices import Notices


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_model_without_a_price_is_logged_once_for_any_number_of_calls(registry: CollectorRegistry) -> None:
    watch = UnbilledUsageMonitor(Metrics(registry, "0"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            watch.noticed(Notices(unpriced={"who-knows": 2}, unknown_types={"aquantum": 1}))
    assert [(one["event"], one.get("model"), one.get("call_type")) for one in logs] == [
        ("usage_unpriced", "who-knows", None),
        ("call_type_unknown", None, "aquantum"),
    ]
    assert registry.get_sample_value("meterbridge_unknown_call_type_calls_total") == 3


def test_a_flood_of_names_ends_with_a_line_that_says_so(registry: CollectorRegistry) -> None:
    watch = UnbilledUsageMonitor(Metrics(registry, "0"))
    with structlog.testing.capture_logs() as logs:
        watch.noticed(Notices(unpriced={f"m{n}": 1 for n in range(MOST_NAMES + 50)}))
    assert len(logs) == MOST_NAMES + 1 and logs[-1]["event"] == "names_left_out"


def test_doubtful_costs_are_counted_in_calls_and_dollars_from_zero_on(registry: CollectorRegistry) -> None:
    watch = UnbilledUsageMonitor(Metrics(registry, "0"))
    for reason, calls, usd in (("implausible_cost", 0, 0), ("cost_differs", 0, 0)):
        assert registry.get_sample_value("meterbridge_doubtful_calls_total", {"reason": reason}) == calls
        assert registry.get_sample_value("meterbridge_doubtful_cost_usd_total", {"reason": reason}) == usd
    watch.noticed(Notices(doubtful={"implausible_cost": Sum(2, Decimal("1.5"))}))
    assert registry.get_sample_value("meterbridge_doubtful_calls_total", {"reason": "implausible_cost"}) == 2
    assert registry.get_sample_value("meterbridge_doubtful_cost_usd_total", {"reason": "implausible_cost"}) == 1.5
