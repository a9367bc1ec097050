"""Events of the SDK: what can be sent, and what is refused before sending."""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import meterbridge_sdk
from meterbridge_sdk.client import api_call_properties
from meterbridge_sdk.errors import BillingRejected
from meterbridge_sdk.events import UsageEvent, usage_event
from meterbridge_sdk.retries import backoff_s
from meterbridge_sdk.service import running_service

#: The README of the package, and the guide, whose programs run in tests/contract/test_sdk_page.py.
PAGES = ("connectors/sdk/README.md", "docs/sdk.md")


def created(properties: Any = None, timestamp: Any = None, org_id: str = "org_1", name: str = "tx") -> UsageEvent:
    return usage_event(org_id, "api_call", name, properties, timestamp, 1_741_219_251.25)


def test_values_become_text_and_numbers_plain_digits() -> None:
    properties = {"a": 1, "b": 1e-05, "c": Decimal("0.00014500"), "d": True, "e": None, "f": "x\0y\ud800", "g": -0.0}
    expected = {"a": "1", "b": "0.00001", "c": "0.000145", "d": "true", "f": "xy�", "g": "0"}
    assert created(properties).properties == expected


@pytest.mark.parametrize(
    ("timestamp", "sent"),
    [
        (None, "2025-03-06T00:00:51.250000Z"),
        (datetime(2025, 3, 6, 1, tzinfo=timezone(timedelta(hours=1))), "2025-03-06T00:00:00.000000Z"),
        (datetime(2025, 3, 6, tzinfo=UTC), "2025-03-06T00:00:00.000000Z"),
        (1_741_219_251, 1_741_219_251),
        ("2025-03-06", "2025-03-06"),
        ("20250306T000000Z", "20250306T000000Z"),
        ("2025-03-06 01:00:00 utc", "2025-03-06 01:00:00 utc"),
        ("1741219251.5", "1741219251.5"),
        ("1e9", "1e9"),
    ],
)
def test_a_timestamp_is_sent_as_utc_or_as_it_was_given(timestamp: Any, sent: Any) -> None:
    assert created(timestamp=timestamp).timestamp == sent


@pytest.mark.parametrize(
    ("arguments", "reason", "named"),
    [
        ({"timestamp": datetime(2025, 3, 6)}, "bad_time", "a datetime"),
        ({"timestamp": inf}, "bad_time", "a timestamp"),
        ({"timestamp": "yesterday"}, "bad_time", "a timestamp"),
        ({"timestamp": ""}, "bad_time", "a timestamp"),
        ({"timestamp": -1}, "bad_time", "a timestamp"),
        ({"timestamp": True}, "bad_time", "a timestamp"),
        ({"timestamp": []}, "bad_time", "a timestamp"),
        ({"org_id": " "}, "bad_event", "org_id is empty"),
        ({"org_id": ""}, "bad_event", "org_id is empty"),
        ({"org_id": ".."}, "bad_event", "org_id must"),
        ({"name": "é" * 128}, "bad_event", "transaction_id must"),
        ({"name": "a\0"}, "bad_event", "transaction_id must"),
        ({"properties": {"a": inf}}, "bad_property", "a is neither"),
        ({"properties": {"a": ["x"]}}, "bad_property", "a is neither"),
        ({"properties": {"a": "x" * 4096}}, "bad_property", "names and values"),
        ({"properties": {"a": Decimal("1e999999999")}}, "number_out_of_range", "a is larger"),
    ],
)
def test_an_invalid_event_is_refused_with_its_reason_and_named(arguments: Any, reason: str, named: str) -> None:
    with pytest.raises(BillingRejected) as caught:
        created(**arguments)
    assert caught.value.reason == reason
    assert caught.value.detail.startswith(named)


@pytest.mark.parametrize("tokens", ["many", -1, 1.5, True, None])
def test_invalid_token_counts_are_refused_before_they_are_sent(tokens: Any) -> None:
    with pytest.raises(BillingRejected) as caught:
        api_call_properties("/reports", None, tokens, None)
    assert (caught.value.reason, caught.value.detail) == ("bad_property", "tokens is not a whole number of 0 or more")
    assert api_call_properties("/reports", None, 0, None)["tokens"] == 0


def test_a_star_import_gets_only_the_public_names() -> None:
    names: dict[str, Any] = {}
    exec("from meterbridge_sdk import *", names)  # the statement that a reader types
    del names["__builtins__"]
    assert set(names) == set(meterbridge_sdk.__all__)
    assert not [name for name in names if name.startswith("_") or isinstance(names[name], ModuleType)]


def test_the_readmes_example_is_one_that_the_guide_runs() -> None:
    root = Path(__file__).parents[3]
    blocks = [set(re.findall(r"```python\n(.*?)```", (root / page).read_text(), re.DOTALL)) for page in PAGES]
    assert len(blocks[0]) == 1 and blocks[0] <= blocks[1]


def test_waits_double_up_to_five_seconds() -> None:
    assert [backoff_s(attempt, 1.0) for attempt in (1, 2, 3, 4, 5, 99)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff_s(3, 0.0) == 0.0


def test_without_a_configured_service_the_functions_say_what_is_missing() -> None:
    with pytest.raises(BillingRejected, match="no_running_service"):
        running_service()
