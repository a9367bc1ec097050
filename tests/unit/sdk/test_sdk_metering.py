"""A request that cannot be billed is counted, and its log line has what is known about it."""

from types import SimpleNamespace
from typing import Any

import pytest

from meterbridge_sdk import CurrentOrg, UsageEvent, UsageRecorder
from meterbridge_sdk.metering import RequestMeter, ServedRequest
from tests.support.sdk_logs import sdk_logs

SERVED = ServedRequest(
    "POST", "/v1/chat", {"idempotency-key": "k1"}, 200, {"x-tokens-used": "150", "x-model-used": "gpt-4"}, "generated"
)
KNOWN = {"method": "POST", "path": "/v1/chat", "status": 200, "request_id": "k1", "tokens": 150, "model": "gpt-4"}


async def send(event: UsageEvent) -> None:
    raise AssertionError(event)


def fails(request: Any) -> CurrentOrg | None:
    raise LookupError(request)


async def later(_: Any) -> CurrentOrg | None:
    return CurrentOrg("org_1")


@pytest.mark.parametrize(
    ("identify", "reason", "known"),
    [
        (fails, "LookupError", {}),
        (lambda _: {"org_id": "org_1", "user_id": "user_1"}, "TypeError", {"org_id": "org_1", "user_id": "user_1"}),
        (lambda request: later(request), "TypeError", {}),  # noqa: PLW0108  # a function that returns a coroutine
        (lambda _: CurrentOrg(7), "bad_event", {"org_id": 7}),  # type: ignore[arg-type]
    ],
)
def test_a_request_whose_org_is_not_found_is_counted_and_logged(identify: Any, reason: str, known: Any) -> None:
    recorder = UsageRecorder(send)
    with sdk_logs() as lines:
        RequestMeter(recorder, identify).record(SimpleNamespace(), SERVED)
    [line] = lines
    assert recorder.counts.dropped == 1
    assert (line["event"], line["reason"]) == ("usage_dropped", reason)
    assert {**line, **KNOWN, **known} == line


def test_without_a_running_service_the_log_has_the_complete_event() -> None:
    with sdk_logs() as lines:
        RequestMeter(None, lambda _: CurrentOrg("org_1", "user_1")).record(SimpleNamespace(), SERVED)
    [line] = lines
    assert (line["reason"], line["org_id"], line["event_code"]) == ("no_running_service", "org_1", "api_call")
    assert line["transaction_id"].startswith("req_")
    assert line["properties"] == {"endpoint": "/v1/chat", "user_id": "user_1", "tokens": "150", "model": "gpt-4"}
    assert line["timestamp"]


def test_a_failed_request_without_tokens_is_no_loss_whatever_identify_does() -> None:
    recorder = UsageRecorder(send)
    with sdk_logs() as lines:
        RequestMeter(recorder, fails).record(SimpleNamespace(), SERVED._replace(status=404, response_headers={}))
    assert (lines, recorder.counts.dropped) == ([], 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("identify", {"identify": later}),
        ("identify", {"identify": "org_1"}),
        ("id_headers", {"id_headers": "X-Request-ID"}),
        ("id_headers", {"id_headers": (b"X-Request-ID",)}),
        ("recorder", {"recorder": send}),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name(name: str, options: Any) -> None:
    with pytest.raises(TypeError, match=name):
        RequestMeter(**options)
