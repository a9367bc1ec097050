"""An argument that could never work is refused by the constructor, and the error names it."""

from typing import Any

import httpx
import pytest

from meterbridge_sdk import (
    BillingRejected,
    FixedLimits,
    MeterbridgeClient,
    UsageEvent,
    UsageRecorder,
    org_billing_service,
)
from meterbridge_sdk.events import usage_event
from meterbridge_sdk.service import running_recorder

URL, KEY = "http://localhost:8080", "mb_key"


async def send(event: UsageEvent) -> None:
    raise AssertionError(event)


@pytest.mark.parametrize("name", ["max_waiting", "workers", "max_age_s"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("10", TypeError), (True, TypeError)])
def test_a_recorder_needs_positive_numbers(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        UsageRecorder(send, **{name: value})


@pytest.mark.parametrize("name", ["plans", "orgs"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"o": {"requests": "1"}}, TypeError),
        ({"o": {"requests": 1.5}}, TypeError),
        ({"o": {"requests": True}}, TypeError),
        ({"o": {"requests": -1}}, ValueError),
        ({"requests": 1}, TypeError),
        ([], TypeError),
    ],
)
def test_a_limit_is_a_whole_number(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        FixedLimits(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("limits", {"tokens": 1}, TypeError),
        ("timeout_s", -1, ValueError),
        ("timeout_s", 0, ValueError),
        ("timeout_s", "30", TypeError),
        ("flush_timeout_s", "10", TypeError),
        ("flush_timeout_s", float("nan"), ValueError),
        ("max_waiting", "10", TypeError),
        ("url", None, TypeError),
        ("url", "http://localhost:80800", ValueError),
        ("url", f"{URL}/?x=1", ValueError),
        ("url", "http://user:secret@localhost", ValueError),
        ("api_key", None, TypeError),
        ("api_key", "Bearer mb_key", ValueError),
    ],
)
async def test_a_service_refuses_a_wrong_option_and_is_not_left_running(
    name: str, value: Any, error: type[Exception]
) -> None:
    options = {"url": URL, "api_key": KEY, name: value}
    with pytest.raises(error, match=name) as raised:
        async with org_billing_service(**options):
            pass
    assert "secret" not in str(raised.value)
    assert "mb_key" not in str(raised.value)
    assert running_recorder() is None


def test_a_client_needs_an_asynchronous_http_client() -> None:
    with httpx.Client() as http, pytest.raises(TypeError, match="http"):
        MeterbridgeClient(http, URL, KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize("properties", [["tokens"], {1: "a"}, "tokens"])
def test_properties_are_a_mapping_with_names_of_text(properties: Any) -> None:
    with pytest.raises(BillingRejected, match="properties"):
        usage_event("org", "api_call", "tx", properties, None, 0)
