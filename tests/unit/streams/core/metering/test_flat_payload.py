"""The flat form, `user`, `spend`, `startTime` and so on, becomes usage: every field of the documented call is read."""

import json
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from schemas.moments import parse_us
from schemas.normalised_call import Usage
from schemas.wire import FLAT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.normalise import normalise

RECEIVED = 1_704_067_201_000_000
CALL: dict[str, Any] = {
    "id": "chatcmpl-1",
    "user": "customer-123",
    "model": "gpt-4o-mini",
    "prompt_tokens": 100,
    "completion_tokens": 200,
    "total_tokens": 301,
    "spend": 0.00014500000000000003,
    "startTime": "2024-01-01T00:00:00Z",
    "endTime": "2024-01-01T00:00:01Z",
    "api_key": "hashed_api_key",
    "request_id": "unique_request_id",
}


def usage_of(**changes: Any) -> Usage:
    """`...` removes a field."""
    call = {name: value for name, value in {**CALL, **changes}.items() if value is not ...}
    stored = strip(json.dumps(call).encode(), FLAT, RECEIVED, CUSTOMER_ID_FIELDS)
    assert stored is not None
    return normalise(msgspec.json.decode(stored[1], type=RawRecord), stored[0], Decimal("1e-12"))


def test_each_field_is_read_into_its_place() -> None:
    usage = usage_of()
    assert (usage.customer_id, usage.id_kind, usage.model) == ("customer-123", "user", "gpt-4o-mini")
    assert (usage.tokens_input, usage.tokens_output, usage.total_tokens) == (100, 200, 301)
    assert usage.cost == Decimal("0.000145")
    assert (usage.start_us, usage.end_us) == (parse_us(CALL["startTime"]), parse_us(CALL["endTime"]))
    assert usage.key_hash == sha256(b"hashed_api_key").hexdigest()
    assert usage.request_id == "chatcmpl-1"


@pytest.mark.parametrize("field", ["id", "request_id"])
def test_either_id_names_the_call(field: str) -> None:
    other = {"id": "request_id", "request_id": "id"}[field]
    assert usage_of(**{other: ...}).request_id == CALL[field]
