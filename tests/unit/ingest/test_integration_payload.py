"""The flat form for other senders, `tokens_input`, `cost_usd` and so on, becomes usage: every value is read into its
field.
"""

import json
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from schemas.normalised_call import Usage
from schemas.wire import FLAT, INTEGRATION, LAGO, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.normalise import normalise

RECEIVED = 1_795_215_900_000_000
CALL: dict[str, Any] = {
    "event_type": "llm.completion",
    "timestamp": "2026-11-20T22:45:16.767Z",
    "customer_id": "customer-123",
    "model": "gpt-4o",
    "provider": "openai",
    "tokens_input": 150,
    "tokens_output": 80,
    "total_tokens": 230,
    "cost_usd": 0.0045,
    "request_id": "req-1",
    "api_key_hash": "abc123",
}


def usage_of(**changes: Any) -> Usage:
    """`...` removes a field."""
    call = {name: value for name, value in {**CALL, **changes}.items() if value is not ...}
    stored = strip(json.dumps(call).encode(), INTEGRATION, RECEIVED, CUSTOMER_ID_FIELDS)
    assert stored is not None
    return normalise(msgspec.json.decode(stored[1], type=RawRecord), stored[0], Decimal("1e-12"))


def test_each_field_is_read_into_its_place() -> None:
    usage = usage_of()
    assert (usage.customer_id, usage.id_kind, usage.model, usage.provider) == (
        *("customer-123", "customer", "gpt-4o", "openai"),
    )
    assert (usage.tokens_input, usage.tokens_output, usage.total_tokens) == (150, 80, 230)
    assert (usage.cost, usage.request_id) == (Decimal("0.0045"), "req-1")
    assert usage.key_hash == sha256(b"abc123").hexdigest()
    assert usage.start_us == usage.end_us == 1_795_214_716_767_000


def test_the_form_is_recognised_by_request_id_and_time() -> None:
    identity = usage_of().identity
    assert usage_of(cost_usd=1, tokens_input=1, model="other").identity == identity
    assert usage_of(timestamp=1_795_214_716.767).identity == identity
    assert identity not in {usage_of(request_id="req-2").identity, usage_of(timestamp="2026-11-20T22:45:17Z").identity}


@pytest.mark.parametrize("cost", ["0.0045", 0.0045])
def test_a_cost_is_read_from_its_text(cost: Any) -> None:
    assert usage_of(cost_usd=cost).cost == Decimal("0.0045")


def test_a_call_without_an_id_is_refused_because_repeats_cannot_be_recognised() -> None:
    with pytest.raises(InvalidElement, match="no_identity"):
        usage_of(request_id=...)


def test_a_missing_total_is_the_sum_of_the_tokens() -> None:
    assert usage_of(total_tokens=...).total_tokens == 230


@pytest.mark.parametrize("money", ["spend", "response_cost", "cost_usd", "cost"])
@pytest.mark.parametrize("customer", ["customer_id", "end_user", "user", "external_customer_id"])
@pytest.mark.parametrize("route", [FLAT, INTEGRATION, LAGO])
def test_cost_and_customer_are_read_from_every_documented_place(route: str, customer: str, money: str) -> None:
    call = {"id": "x", customer: "c", money: 0.02, "prompt_tokens": 10, "tokens_output": 5, "startTime": 1795214716.5}
    stored = strip(json.dumps(call).encode(), route, RECEIVED, CUSTOMER_ID_FIELDS)
    assert stored is not None
    usage = normalise(msgspec.json.decode(stored[1], type=RawRecord), stored[0], Decimal("1e-12"))
    assert (usage.customer_id, usage.cost) == ("c", Decimal("0.02"))
    assert (usage.tokens_input, usage.tokens_output, usage.total_tokens) == (10, 5, 15)
    assert usage.start_us == 1_795_214_716_500_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spend": 0.0045}, None),
        ({"spend": "0.00450000000000000001"}, None),
        ({"spend": 0.0046}, "contradicting_cost"),
        ({"response_cost": 0}, "contradicting_cost"),
        ({"end_user": "customer-123"}, None),
        ({"end_user": " customer-123 "}, None),
        ({"end_user": "customer-124"}, "contradicting_customer"),
        ({"user": "alice", "team_id": "t"}, None),
    ],
)
def test_a_contradictory_call_is_refused(changes: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        assert usage_of(**changes).cost == Decimal("0.0045")
        return
    with pytest.raises(InvalidElement) as caught:
        usage_of(**changes)
    assert caught.value.reason == reason
