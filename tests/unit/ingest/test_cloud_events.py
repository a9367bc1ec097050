"""A CloudEvent of LiteLLM's `openmeter` callback becomes usage: without a prompt, without guesses, with one identity
for each call.
"""

import json
from base64 import b64encode
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import customer_of_rest, strip
from connectors.ingest.rejection_record import InvalidElement
from schemas.normalised_call import Usage
from schemas.reasons import BAD_NUMBER, NOT_AN_OBJECT, NOT_JSON, WRONG_TYPE
from schemas.wire import CLOUDEVENT, FLAT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.identity import identity_of
from streams.core.metering.normalise import normalise

RECEIVED = 1_795_215_900_000_000
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "litellm_tokens",
    "id": "chatcmpl-1",
    "time": "2026-11-20T22:45:16.767092+00:00",
    "subject": "cust_42",
    "source": "litellm-proxy",
    "data": {
        "model": "gpt-4o",
        "cost": 0.00014500000000000003,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
    },
}


def stripped(element: str | bytes) -> tuple[str, bytes] | None:
    text = element.encode() if isinstance(element, str) else element
    return strip(text, CLOUDEVENT, RECEIVED, CUSTOMER_ID_FIELDS)


def usage_of(**changes: Any) -> Usage:
    stored = stripped(json.dumps({**EVENT, **changes}))
    assert stored is not None
    record = msgspec.json.decode(stored[1], type=RawRecord)
    return normalise(record, stored[0], Decimal("1e-12"))


def test_each_attribute_is_read_into_its_field() -> None:
    usage = usage_of()
    assert (usage.customer_id, usage.id_kind, usage.request_id, usage.model) == (
        "cust_42",
        "customer",
        "chatcmpl-1",
        "gpt-4o",
    )
    assert (usage.tokens_input, usage.tokens_output, usage.total_tokens) == (10, 20, 30)
    assert usage.cost == Decimal("0.000145")
    assert usage.start_us == usage.end_us == 1_795_214_716_767_092
    assert usage.status == "success"


def test_a_number_keeps_its_text_and_unused_fields_are_removed() -> None:
    stored = stripped('{"id":"1","subject":"c","messages":"p","data":{"cost":1.50e-05,"prompt":"secret"},"x":{}}')
    assert stored is not None
    assert b'"cost":1.50e-05' in stored[1]
    assert b"secret" not in stored[1]
    assert b'"call":{"cloud_event":{"id":"1","subject":"c","data":{"cost":1.50e-05}}}' in stored[1]


def test_the_identity_of_a_litellm_event_is_source_subject_id_and_time() -> None:
    """LiteLLM uses the provider's id, and some providers use one id twice."""
    same = {usage_of(**change).identity for change in ({}, {"type": "x"}, {"time": "2026-11-20T22:45:16.767092Z"})}
    assert len(same) == 1
    changes = (
        {"source": "other"},
        {"subject": "s"},
        {"id": "2"},
        {"time": "2026-11-20T22:45:16.767093Z"},
        {"time": None},
    )
    assert len(same | {usage_of(**change).identity for change in changes}) == 6


def test_without_a_time_the_call_ended_at_its_receipt_and_without_a_subject_it_is_unattributed() -> None:
    assert usage_of(time=None).end_us == RECEIVED
    assert usage_of(subject=None).id_kind == "unattributed"
    with pytest.raises(InvalidElement, match="not_a_call"):
        usage_of(data=None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "no_identity"),
        ({"id": ""}, "no_identity"),
        ({"time": "yesterday"}, "bad_time"),
        ({"data": {"cost": -1}}, "negative_cost"),
        ({"data": {"cost": "1_000"}}, "wrong_type"),
    ],
)
def test_an_event_that_can_never_be_billed_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidElement) as caught:
        usage_of(**change)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("element", "reason", "customer"),
    [
        ('{"id":"1","subject":"c","data":{"cost":NaN}}', BAD_NUMBER, "c"),
        ('{"id":"1","subject":"c","data":"tokens"}', WRONG_TYPE, "c"),
        ('{"id":"1","subject":["c"],"data":{}}', WRONG_TYPE, "unattributed:"),
        ("42", NOT_AN_OBJECT, None),
        ('{"id":', NOT_JSON, None),
    ],
)
def test_an_event_that_cannot_be_stored_is_refused_with_its_valid_fields(
    element: str, reason: str, customer: str | None
) -> None:
    with pytest.raises(InvalidElement) as caught:
        stripped(element)
    assert caught.value.reason == reason
    assert customer_of_rest(caught.value, CLOUDEVENT, CUSTOMER_ID_FIELDS) == customer


def test_null_is_no_call_and_nan_outside_the_data_is_ignored() -> None:
    assert stripped("null") is None
    stored = stripped('{"id":"1","subject":"c","extra":NaN,"data":{"cost":1}}')
    assert stored is not None
    assert stored[0] == "c"


def test_the_identity_of_other_senders_events_is_source_and_id_as_specified() -> None:
    others = {"source": "/gateway"}
    same = [usage_of(**others), usage_of(**others, subject="s"), usage_of(**others, time="2026-11-20T22:45:17Z")]
    assert len({usage.identity for usage in same}) == 1
    assert usage_of(source="/other").identity != same[0].identity
    assert usage_of(**others, id="2").identity != same[0].identity


def test_an_event_of_another_sender_is_also_remembered_by_the_older_releases_identity() -> None:
    """Otherwise a repeat after an upgrade would be billed again."""
    usage = usage_of(source="/gateway")
    older = identity_of("cloudevent", "/gateway", "cust_42", "chatcmpl-1", str(usage.start_us))
    assert usage.twins == ((older,), (older,))


@pytest.mark.parametrize(
    "told",
    [
        lambda data: {"data": json.dumps(data)},
        lambda data: {"data": None, "data_base64": b64encode(json.dumps(data).encode()).decode()},
    ],
    ids=["text", "base64"],
)
def test_data_may_be_text_or_base64(told: Any) -> None:
    usage = usage_of(**told(EVENT["data"]))
    assert (usage.cost, usage.total_tokens, usage.model) == (Decimal("0.000145"), 30, "gpt-4o")


def test_unreadable_data_is_refused_because_it_holds_the_cost() -> None:
    with pytest.raises(InvalidElement, match="wrong_type"):
        usage_of(data=None, data_base64="%%%")


@pytest.mark.parametrize("money", ["cost", "spend", "response_cost", "cost_usd"])
def test_field_names_of_other_senders_in_the_data_are_read(money: str) -> None:
    usage = usage_of(subject=None, data={money: 0.5, "end_user": "u", "tokens_input": 3, "tokens_output": 4})
    assert (usage.customer_id, usage.cost, usage.total_tokens) == ("u", Decimal("0.5"), 7)


def test_an_event_is_recognised_on_every_route_and_a_plain_call_on_this_one() -> None:
    event = strip(json.dumps(EVENT).encode(), FLAT, RECEIVED, CUSTOMER_ID_FIELDS)
    assert event == stripped(json.dumps(EVENT))
    call = stripped('{"id":"x","spend":0.5,"end_user":"u"}')
    assert call is not None
    assert msgspec.json.decode(call[1], type=RawRecord).shape == FLAT
