"""Rejected calls read again: accepted if only a detail was malformed, never without cost or customer.

The rejections are as the topic has them: the sound rest of a call, and the names of the fields that were not sound.
"""

import json
from typing import Any

import msgspec
import pytest

from connectors.operations.reread import read_again
from schemas.records import Rejection
from schemas.wire import CLOUDEVENT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.calls import NOON

GOOD = {"id": "r", "litellm_call_id": "c", "spend": 0.5, "startTime": NOON / 1e6, "end_user": "acme", "model": "m"}


def refused(*names: str, reason: str = "wrong_type", call: dict[str, Any] | None = None) -> Rejection:
    """A call in which the fields of these names were malformed."""
    rest = {name: value for name, value in (call or GOOD).items() if name not in names}
    return Rejection(reason, "ingress", NOON, ", ".join(names), call=msgspec.Raw(json.dumps(rest).encode()))


@pytest.mark.parametrize("names", [["model"], ["prompt_tokens"], ["byok"], ["model", "total_tokens"], ["cache_hit"]])
@pytest.mark.parametrize("reason", ["wrong_type", "bad_number"])
def test_a_malformed_detail_is_left_out_of_the_call(names: list[str], reason: str) -> None:
    found = read_again(refused(*names, reason=reason), CUSTOMER_ID_FIELDS)
    assert found is not None
    key, value = found
    record = msgspec.json.decode(value, type=RawRecord)
    assert (key, record.received_at, str(record.call.spend), record.call.id) == ("acme", NOON, "0.5", "r")


@pytest.mark.parametrize(
    "name",
    [
        *("spend", "id", "litellm_call_id", "startTime", "endTime", "end_user", "metadata", "cost_usd"),
        *("metadata.user_api_key_hash", "properties.response_cost", "cloud_event.subject"),
    ],
)
def test_without_cost_identity_time_or_customer_the_call_stays_rejected(name: str) -> None:
    assert read_again(refused(name), CUSTOMER_ID_FIELDS) is None
    assert read_again(refused("model", name), CUSTOMER_ID_FIELDS) is None


def test_an_element_that_was_no_call_stays_rejected() -> None:
    assert read_again(Rejection("not_json", "ingress", NOON, length=3), CUSTOMER_ID_FIELDS) is None
    assert read_again(Rejection("wrong_type", "ingress", NOON, call=msgspec.Raw(b"[]")), CUSTOMER_ID_FIELDS) is None


def test_a_cloud_event_is_read_as_a_cloud_event_again() -> None:
    event = {"id": "e", "source": "s", "subject": "acme", "time": NOON / 1e6, "data": {"cost": 1}}
    kept = refused("cloud_event.data.model", call={"cloud_event": event})
    again = read_again(kept, CUSTOMER_ID_FIELDS)
    assert again is not None and again[0] == "acme"
    assert msgspec.json.decode(again[1], type=RawRecord).shape == CLOUDEVENT
