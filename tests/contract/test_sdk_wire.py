"""The SDK shares no code with the server: names that both use are the same."""

import ast
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TypeVar
from unicodedata import normalize

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

import meterbridge_sdk
from connectors.access.scopes import SCOPES
from connectors.api.limits import LimitsOfOrg
from connectors.api.org_models import AccountShown, SubscriptionShown
from connectors.api.org_usage import Accepted, ChargedUsage, UsageBody, UsageShown
from connectors.api.orgs import ChangedShown, PlanChangeBody, SetupBody
from connectors.billing import metered_events, metered_numbers, org_billing, usage_limits
from connectors.billing.org_accounts import NO_SUBSCRIPTION, UNKNOWN_ORG
from connectors.http.problem import Problem
from connectors.library import orgs
from meterbridge_sdk import errors, events, retries, wire
from schemas.errors import Rejected
from streams.core.delivery.retry_after import requested_wait_s
from tests.support.org_api import org_api

T = TypeVar("T")
PACKAGE = Path(meterbridge_sdk.__file__).parent
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.builds(lambda exponent: Decimal(f"1e{exponent}"), st.integers(-60, 60)),
)
VALUES = st.none() | st.booleans() | st.text(max_size=20) | NUMBERS
TEXT = st.text(st.characters(codec=None), max_size=10)


async def test_every_request_of_the_sdk_is_an_endpoint_with_its_scope() -> None:
    async with org_api() as api:
        offered = {(one.method, one.path): one.scope for one in api.endpoints}
    for route in wire.ROUTES:
        assert offered[route.method, route.path] == route.scope
        assert route.scope in SCOPES


def test_every_member_that_is_sent_or_read_exists_on_the_server() -> None:
    """And every member that the server requires is sent."""
    sent = {"event_code", "transaction_id", "properties", "timestamp"}
    assert sent == set(UsageBody.model_fields)
    assert {name for name, field in UsageBody.model_fields.items() if field.is_required()} <= sent
    signed_up = {"plan_code", "org_name", "email", "user_id", "billing_time", "subscription_at"}
    assert signed_up <= set(SetupBody.model_fields)
    assert set(PlanChangeBody.model_fields) == {"plan_code"}
    assert "transaction_id" in Accepted.model_fields
    assert "effective" in LimitsOfOrg.model_fields
    assert {"external_id", "plan_code", "status", "started_at", "next_plan_code"} <= set(SubscriptionShown.model_fields)
    for shown in (AccountShown, ChangedShown):
        assert "subscription" in shown.model_fields
    read = {"external_subscription_id", "from_datetime", "to_datetime", "currency", "amount_cents", "charges"}
    assert read <= set(UsageShown.model_fields)
    assert {"code", "units"} <= set(ChargedUsage.model_fields)
    assert {b'"reason"', b'"detail"'} <= set(Problem(400, "x", "y").body().replace(b":", b",").split(b","))


def test_names_and_bounds_are_the_servers() -> None:
    assert orgs.API_CALL == wire.API_CALL
    assert org_billing.OTHER_PLAN == wire.OTHER_PLAN
    assert (NO_SUBSCRIPTION, UNKNOWN_ORG) == (wire.NO_SUBSCRIPTION, wire.UNKNOWN_ORG)
    assert (metered_events.MAX_ID_BYTES, metered_events.MAX_PROPERTIES_BYTES) == (
        wire.MAX_ID_BYTES,
        wire.MAX_PROPERTIES_BYTES,
    )
    assert metered_numbers.MAX_DIGITS == wire.MAX_DIGITS
    assert metered_numbers.OUT_OF_RANGE == "number_out_of_range"
    assert (usage_limits.TOKENS, usage_limits.REQUESTS, usage_limits.AMOUNT_CENTS) == (
        wire.TOKENS,
        wire.REQUESTS,
        wire.AMOUNT_CENTS,
    )
    called = {"endpoint": "/x", "user_id": "u", "tokens": 1, "model": "m"}
    assert orgs.call_properties(**called) == meterbridge_sdk.client.api_call_properties(**called)  # type: ignore[arg-type]


@given(st.dictionaries(TEXT, VALUES, max_size=4), TEXT, TEXT)
@example({"n": 1e41}, "\uf900", "0")
def test_an_event_equals_the_one_that_the_server_would_create(
    properties: dict[str, metered_events.Value], org_id: str, transaction_id: str
) -> None:
    """Recorded in the server's process or by the SDK: the same properties, and what the SDK refuses the server refuses."""
    created = outcome(lambda: events.usage_event(org_id, "api_call", transaction_id, properties, None, 0))
    expected = outcome(lambda: metered_events.metered(org_id, "api_call", transaction_id, properties, None, 0))
    if {org_id, transaction_id} & {".", ".."}:
        assert created == "bad_event", "in a path it would mean another one"
    elif isinstance(created, str):  # of two faults the server may name the one that it alone looks for
        assert created == expected or (expected == "bad_event" and normalize("NFC", org_id) != org_id)
    elif isinstance(expected, str):
        assert expected in {"bad_event", "number_out_of_range"}, "what is left to the server"
    else:
        sent = created.org_id, created.event_code, created.transaction_id, created.properties, created.timestamp
        assert metered_events.metered(*sent, 1) == expected


def outcome(make: Callable[[], T]) -> T | str:
    """The created event, or the reason of the refusal."""
    try:
        return make()
    except (Rejected, errors.BillingRejected) as refused:
        return refused.reason


@given(
    st.sampled_from(["0", "1", "7.5", "120", "-3", "Wed, 21 Oct 2026 07:28:02 GMT", "soon", ""]),
    st.sampled_from(["Wed, 21 Oct 2026 07:28:00 GMT", "", "x"]),
)
def test_retry_after_is_read_like_in_the_application(text: str, date: str) -> None:
    headers, now_s = {"retry-after": text, "date": date}, 1_792_567_680.0
    whole = text.isdigit() or not text.replace(".", "").isdigit()
    if whole:
        expected = min(requested_wait_s(503, headers, now_s) or 0.0, retries.LONGEST_WAIT_S)
        assert retries.retry_after_s(httpx.Headers(headers), now_s) == expected
    else:
        assert retries.retry_after_s(httpx.Headers(headers), now_s) == 0.0, "RFC 9110 has whole seconds"


def test_the_sdk_imports_only_the_standard_library_and_httpx() -> None:
    """Except aiohttp, in the one module for aiohttp services."""
    files = sorted(PACKAGE.glob("**/*.py"))
    assert len(files) > 10
    for file in files:
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add((node.module or "").partition(".")[0])
        allowed = {"httpx", "meterbridge_sdk"} | ({"aiohttp"} if file.name == "aiohttp.py" else set())
        assert imported - allowed <= sys.stdlib_module_names, file.name
