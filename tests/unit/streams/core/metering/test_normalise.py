"""Missing counts are 0; which end is believed; by which ids a call is recognised; each exactly at its border."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.errors import Rejected
from schemas.moments import HOUR_US, MAX_US, SECOND_US
from schemas.normalised_call import Usage
from schemas.wire import ENVELOPE_VERSION, RawRecord
from streams.core.metering.identity import identity_of
from streams.core.metering.normalise import FUTURE_US, normalise
from tests.support.calls import NOON, raw_value, slp

UNIT, AT = Decimal("1e-12"), NOON // SECOND_US


def usage(**fields: Any) -> Usage:
    return normalise(msgspec.json.decode(raw_value(slp(1, **fields)), type=RawRecord), "acme", UNIT)


def metadata_of(**usage_object: Any) -> dict[str, Any]:
    return {"metadata": {"usage_object": usage_object}}


@pytest.mark.parametrize(
    ("fields", "cached", "reasoning"),
    [
        ({}, 0, 0),
        ({"metadata": {}}, 0, 0),
        (metadata_of(), 0, 0),
        (metadata_of(prompt_tokens_details={}, completion_tokens_details={}), 0, 0),
        (metadata_of(prompt_tokens_details={"cached_tokens": 7}), 7, 0),
        (metadata_of(prompt_tokens_details={"cached_tokens": 0}, cache_read_input_tokens=5), 0, 0),
        (metadata_of(cache_read_input_tokens=5), 5, 0),
        (metadata_of(prompt_tokens_details={}, cache_read_input_tokens=5), 5, 0),
        (metadata_of(completion_tokens_details={"reasoning_tokens": 9}), 0, 9),
        ({"cached_tokens": 3, "reasoning_tokens": 4}, 3, 4),
        ({"cached_tokens": 0, "reasoning_tokens": 0} | metadata_of(cache_read_input_tokens=5), 0, 0),
    ],
)
def test_cached_and_reasoning_tokens_are_the_reported_numbers_or_0(
    fields: dict[str, Any], cached: int, reasoning: int
) -> None:
    found = usage(**fields)
    assert (found.cached_tokens, found.reasoning_tokens) == (cached, reasoning)
    assert (found.tokens_input, found.tokens_output, found.total_tokens) == (10, 12, 22)


@pytest.mark.parametrize("shape", ["integration", "lago", "cloudevent"])
def test_shapes_without_these_fields_count_0(shape: str) -> None:
    call = {"request_id": "r", "transaction_id": "t", "timestamp": NOON // 1_000_000, "response_cost": Decimal("0.1")}
    event = {"cloud_event": {"id": "e", "source": "s"}}
    found = normalise(msgspec.json.decode(raw_value({**call, **event}, shape=shape), type=RawRecord), "acme", UNIT)
    assert (found.cached_tokens, found.reasoning_tokens, found.total_tokens) == (0, 0, 0)


@pytest.mark.parametrize("ahead_us", [FUTURE_US, FUTURE_US + 1])
@pytest.mark.parametrize("by_clock", [True, False])
def test_an_end_is_believed_up_to_ten_minutes_ahead_of_either_clock(ahead_us: int, by_clock: bool) -> None:
    assert FUTURE_US == 600 * SECOND_US
    call = slp(1) | {"startTime": AT, "endTime": None, "timestamp": None}
    record = msgspec.json.decode(raw_value(call, received_us=NOON - HOUR_US), type=RawRecord)
    stored, clock = NOON - ahead_us, NOON - HOUR_US
    found = normalise(record, "acme", UNIT, *((clock, stored) if by_clock else (stored, clock)))
    believed = ahead_us == FUTURE_US
    assert found.end_us == (NOON if believed else (clock if by_clock else stored))
    assert found.told_end_us == (0 if believed else NOON)
    assert found.note == ("" if believed else "future_time")


def test_an_envelope_of_a_later_release_is_refused() -> None:
    record = msgspec.json.decode(raw_value(slp(1)), type=RawRecord)
    record.v = ENVELOPE_VERSION + 1
    with pytest.raises(Rejected) as refused:
        normalise(record, "acme", UNIT)
    assert refused.value.reason == "unknown_version"


def test_an_unknown_shape_is_refused_with_the_list_of_known_ones_and_without_its_text() -> None:
    """Text of another program in the topic must not get into the logs."""
    record = msgspec.json.decode(raw_value(slp(1)), type=RawRecord)
    record.shape = "sk-secret"
    with pytest.raises(Rejected) as refused:
        normalise(record, "acme", UNIT)
    assert refused.value.reason == "unknown_shape"
    assert "is none of slp, flat, integration, lago, cloudevent, metered" in refused.value.detail
    assert "sk-secret" not in str(refused.value)


@pytest.mark.parametrize("start_ms", [0, 1, 2, 1_795_176_000_123])
def test_a_backfilled_call_is_searched_two_milliseconds_around_its_start(start_ms: int) -> None:
    """With every status: LiteLLM's database calls an interrupted stream a success, and a sender may leave it out."""
    call = {"id": "i", "litellm_call_id": "c", "status": "success", "startTime": start_ms / 1000, "endTime": AT}
    record = msgspec.json.decode(raw_value(call), type=RawRecord)
    record.source = "backfill"
    found = normalise(record, "acme", UNIT)
    near = range(max(0, start_ms - 2), start_ms + 3)
    statuses = ("success", "failure", "")
    around = {identity_of("litellm", "c", "i", status, str(at)) for status in statuses for at in near}
    untimed = {identity_of("litellm", "c", "i", status, "") for status in statuses}
    sought, kept = found.twins or ((), ())
    assert {found.identity, *sought} == around | untimed
    assert {found.identity, *kept} == around | {identity_of("backfilled", "c", "i")}
    assert found.identity not in sought + kept and len(kept) == len(around)


def metered(**fields: Any) -> Usage:
    event = {"org_id": "org", "transaction_id": "t", "code": "seats", "at": NOON, **fields}
    envelope = {"v": 1, "source": "api", "shape": "metered", "received_at": NOON, "id_kind": "org", "call": {}}
    return normalise(msgspec.json.decode(json.dumps(envelope | {"metered": event}), type=RawRecord), "org", UNIT)


def test_a_metered_event_has_no_count_and_no_cost_and_any_valid_time() -> None:
    found = metered()
    assert (found.tokens_input, found.tokens_output, found.total_tokens) == (0, 0, 0)
    assert (found.cached_tokens, found.reasoning_tokens, found.cost, found.call_type) == (0, 0, 0, "seats")
    assert metered(at=0).end_us == 0 and metered(at=MAX_US - 1).start_us == MAX_US - 1
    for at in (-1, MAX_US):
        with pytest.raises(Rejected) as refused:
            metered(at=at)
        assert refused.value.reason == "bad_time"
    for name in ("org_id", "transaction_id"):
        with pytest.raises(Rejected) as refused:
            metered(**{name: ""})
        assert refused.value.reason == "no_identity"
