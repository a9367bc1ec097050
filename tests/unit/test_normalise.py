"""Where each count of a call is read, and that what nobody counted is nothing."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.errors import Rejected
from schemas.moments import HOUR_US, MAX_US, SECOND_US
from schemas.usage import Usage
from schemas.wire import ENVELOPE_VERSION, RawRecord
from streams.core.identity import identity_of
from streams.core.normalise import FUTURE_US, normalise
from tests.support.calls import NOON, raw_value, slp

UNIT = Decimal("1e-12")


def usage(**fields: Any) -> Usage:
    return normalise(msgspec.json.decode(raw_value(slp(1, **fields)), type=RawRecord), "acme", UNIT)


def counted(**usage_object: Any) -> dict[str, Any]:
    return {"metadata": {"usage_object": usage_object}}


@pytest.mark.parametrize(
    ("fields", "cached", "reasoning"),
    [
        ({}, 0, 0),
        ({"metadata": {}}, 0, 0),
        (counted(), 0, 0),
        (counted(prompt_tokens_details={}, completion_tokens_details={}), 0, 0),
        (counted(prompt_tokens_details={"cached_tokens": 7}), 7, 0),
        (counted(prompt_tokens_details={"cached_tokens": 0}, cache_read_input_tokens=5), 0, 0),
        (counted(cache_read_input_tokens=5), 5, 0),
        (counted(prompt_tokens_details={}, cache_read_input_tokens=5), 5, 0),
        (counted(completion_tokens_details={"reasoning_tokens": 9}), 0, 9),
        ({"cached_tokens": 3, "reasoning_tokens": 4}, 3, 4),
        ({"cached_tokens": 0, "reasoning_tokens": 0} | counted(cache_read_input_tokens=5), 0, 0),
    ],
)
def test_cached_and_reasoning_tokens_are_what_was_counted_and_else_none(
    fields: dict[str, Any], cached: int, reasoning: int
) -> None:
    found = usage(**fields)
    assert (found.cached_tokens, found.reasoning_tokens) == (cached, reasoning)
    assert (found.tokens_input, found.tokens_output, found.total_tokens) == (10, 12, 22)


@pytest.mark.parametrize("shape", ["integration", "lago", "cloudevent"])
def test_the_shapes_that_tell_neither_count_none(shape: str) -> None:
    call = {"request_id": "r", "transaction_id": "t", "timestamp": NOON // 1_000_000, "response_cost": Decimal("0.1")}
    event = {"cloud_event": {"id": "e", "source": "s"}}
    found = normalise(msgspec.json.decode(raw_value({**call, **event}, shape=shape), type=RawRecord), "acme", UNIT)
    assert (found.cached_tokens, found.reasoning_tokens, found.total_tokens) == (0, 0, 0)


#: Where LiteLLM's two shapes tell each field of a call, the one that counts first.
PLACES: dict[str, list[str]] = {
    "model": ["model", "model_group"],
    "provider": ["custom_llm_provider", "provider"],
    "call_type": ["call_type"],
    "model_group": ["model_group"],
    "request_id": ["id", "request_id"],
    "call_id": ["litellm_call_id"],
    "end_user": ["end_user", "metadata.user_api_key_end_user_id"],
    "user_id": ["user_id", "metadata.user_api_key_user_id", "user"],
    "team_id": ["team_id", "metadata.user_api_key_team_id"],
    "organization_id": ["organization_id", "metadata.user_api_key_org_id"],
    "project_id": ["metadata.user_api_key_project_id"],
    "key_hash": ["api_key", "metadata.user_api_key_hash", "api_key_hash"],
    "key_alias": ["key_alias", "metadata.user_api_key_alias"],
}
#: The same of the shapes with a single moment.
OTHERS: dict[str, dict[str, list[str]]] = {
    "integration": {
        "model": ["model"],
        "provider": ["provider", "custom_llm_provider"],
        "call_type": ["call_type"],
        "request_id": ["request_id", "id"],
        "key_hash": ["api_key_hash", "api_key"],
    },
    "lago": {
        "model": ["properties.model", "model"],
        "provider": ["properties.provider", "provider"],
        "request_id": ["transaction_id"],
    },
    "cloudevent": {
        "model": ["cloud_event.data.model"],
        "provider": ["cloud_event.data.provider"],
        "request_id": ["cloud_event.id"],
    },
}
#: Counts of each shape, the place that counts first.
COUNTS: dict[str, dict[str, list[str]]] = {
    "slp": {
        "tokens_input": ["prompt_tokens", "tokens_input"],
        "tokens_output": ["completion_tokens", "tokens_output"],
        "total_tokens": ["total_tokens"],
    },
    "integration": {
        "tokens_input": ["tokens_input", "prompt_tokens"],
        "tokens_output": ["tokens_output", "completion_tokens"],
        "total_tokens": ["total_tokens"],
    },
    "lago": {
        "tokens_input": ["properties.prompt_tokens", "prompt_tokens"],
        "tokens_output": ["properties.completion_tokens", "completion_tokens"],
        "total_tokens": ["properties.total_tokens", "total_tokens"],
    },
    "cloudevent": {
        "tokens_input": ["cloud_event.data.prompt_tokens", "cloud_event.data.tokens_input"],
        "tokens_output": ["cloud_event.data.completion_tokens", "cloud_event.data.tokens_output"],
        "total_tokens": ["cloud_event.data.total_tokens"],
    },
}
#: What every call needs, and in each shape its identity and time.
LEAST: dict[str, dict[str, Any]] = {
    "flat": {"id": "i", "startTime": NOON // SECOND_US, "spend": Decimal("0.1")},
    "slp": {"id": "i", "startTime": NOON // SECOND_US, "response_cost": Decimal("0.1")},
    "integration": {"request_id": "r", "timestamp": NOON // SECOND_US, "cost_usd": Decimal("0.1")},
    "lago": {"transaction_id": "t", "timestamp": NOON // SECOND_US, "properties": {"spend": Decimal("0.1")}},
    "cloudevent": {"cloud_event": {"id": "e", "time": NOON // SECOND_US, "data": {"cost": Decimal("0.1")}}},
}


def placed(shape: str, values: dict[str, Any]) -> Usage:
    """The call with each value at its place, `a.b` being `b` within `a`."""
    call: dict[str, Any] = json.loads(json.dumps(LEAST[shape], default=str))
    for place, value in values.items():
        *outer, name = place.split(".")
        of = call
        for one in outer:
            of = of.setdefault(one, {})
        of[name] = value
    return normalise(msgspec.json.decode(raw_value(call, shape=shape), type=RawRecord), "acme", UNIT)


@pytest.mark.parametrize(
    ("shape", "field", "places"),
    [
        *(("slp", field, places) for field, places in PLACES.items()),
        *(("flat", field, places) for field, places in PLACES.items()),
        *((shape, field, places) for shape, fields in OTHERS.items() for field, places in fields.items()),
    ],
)
def test_each_text_is_taken_from_the_first_place_that_has_it(shape: str, field: str, places: list[str]) -> None:
    values = {place: f"at {place}" for place in places}
    for place in places:
        assert getattr(placed(shape, values), field) == f"at {place}"
        values[place] = ""
    if field != "request_id":
        assert getattr(placed(shape, {}), field) == ""


@pytest.mark.parametrize(
    ("shape", "field", "places"),
    [(shape, field, places) for shape, fields in COUNTS.items() for field, places in fields.items()],
)
def test_each_count_is_taken_from_the_first_place_that_has_it(shape: str, field: str, places: list[str]) -> None:
    for number, place in enumerate(places):
        values = dict(zip(places[number:], range(7, 9), strict=False))
        found = placed(shape, values)
        assert getattr(found, field) == 7, place
        others = {"tokens_input", "tokens_output"} - {field}
        assert all(getattr(found, other) == 0 for other in others)
    none = placed(shape, dict.fromkeys(places, None))
    assert (none.tokens_input, none.tokens_output, none.total_tokens) == (0, 0, 0)


@pytest.mark.parametrize("shape", COUNTS)
def test_without_a_total_it_is_the_sum_and_a_total_that_is_told_stays(shape: str) -> None:
    first = {field: places[0] for field, places in COUNTS[shape].items()}
    both = {first["tokens_input"]: 3, first["tokens_output"]: 4}
    assert placed(shape, both).total_tokens == 7
    assert placed(shape, both | {first["total_tokens"]: 9}).total_tokens == 9


@pytest.mark.parametrize("shape", ["slp", "integration"])
@pytest.mark.parametrize(
    ("told", "hit"), [(True, True), ("True", True), ("1", True), (False, False), ("False", False), (None, False)]
)
def test_a_cache_hit_is_one_where_it_says_so(shape: str, told: object, hit: bool) -> None:
    assert placed(shape, {"cache_hit": told}).cache_hit is hit
    assert placed(shape, {}).cache_hit is False


@pytest.mark.parametrize("shape", ["slp", "integration"])
def test_who_brought_the_key_says_so(shape: str) -> None:
    assert [placed(shape, {"byok": told}).byok for told in (True, False, None)] == [True, False, False]


@pytest.mark.parametrize("shape", COUNTS)
def test_a_call_that_tells_no_status_succeeded(shape: str) -> None:
    assert placed(shape, {}).status == "success"
    if shape != "cloudevent":
        assert placed(shape, {"status": "failure"}).status == "failure"


AT = NOON // SECOND_US


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ({"startTime": AT - 5, "endTime": AT - 1}, AT - 5, AT - 1),
        ({"startTime": AT - 5}, AT - 5, AT - 5),
        ({"startTime": AT - 5, "endTime": ""}, AT - 5, AT - 5),
        ({"startTime": AT - 5, "endTime": None}, AT - 5, AT - 5),
        ({"startTime": None, "endTime": AT - 1}, AT - 1, AT - 1),
        ({"startTime": "", "endTime": AT - 1, "timestamp": AT - 3}, AT - 3, AT - 1),
        ({"startTime": None, "endTime": AT - 1, "timestamp": AT - 3}, AT - 3, AT - 1),
        ({"startTime": AT - 5, "endTime": AT - 1, "timestamp": AT - 3}, AT - 5, AT - 1),
        ({"startTime": None}, AT, AT),
    ],
)
def test_start_and_end_are_those_that_are_told_and_else_each_other(times: dict[str, Any], start: int, end: int) -> None:
    found = placed("slp", times)
    assert (found.start_us, found.end_us) == (start * SECOND_US, end * SECOND_US)


@pytest.mark.parametrize("shape", ["integration", "lago"])
def test_a_single_moment_is_both_and_else_that_of_the_receipt(shape: str) -> None:
    for told, at in ((AT - 7, AT - 7), (None, AT), ("", AT)):
        found = placed(shape, {"timestamp": told})
        assert (found.start_us, found.end_us) == (at * SECOND_US, at * SECOND_US)


@pytest.mark.parametrize(
    "times", [{"startTime": AT - 5}, {"endTime": AT - 5}, {"startTime": AT - 5, "endTime": AT - 5}]
)
def test_an_integration_payload_with_litellms_times_is_read_as_litellms(times: dict[str, Any]) -> None:
    found = placed("integration", {"timestamp": None, **times})
    assert (found.start_us, found.end_us) == (AT * SECOND_US - 5 * SECOND_US,) * 2
    assert len(found.twins) == ("startTime" in times), "by what releases before called it"
    assert placed("integration", times).end_us == NOON, "its own moment counts"


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


def test_without_either_id_a_call_is_none_and_one_is_enough() -> None:
    with pytest.raises(Rejected, match="neither") as refused:
        placed("slp", {"id": ""})
    assert refused.value.reason == "no_identity"
    assert placed("slp", {"id": "", "litellm_call_id": "c"}).identity
    for shape, place in (("lago", "transaction_id"), ("cloudevent", "cloud_event.id")):
        with pytest.raises(Rejected) as refused:
            placed(shape, {place: ""})
        assert refused.value.reason == "no_identity"


def test_an_envelope_of_a_later_release_is_not_guessed_at() -> None:
    record = msgspec.json.decode(raw_value(slp(1)), type=RawRecord)
    record.v = ENVELOPE_VERSION + 1
    with pytest.raises(Rejected) as refused:
        normalise(record, "acme", UNIT)
    assert refused.value.reason == "unknown_version"


@pytest.mark.parametrize("start_ms", [0, 1, 2, 1_795_176_000_123])
def test_a_backfilled_call_is_looked_for_two_milliseconds_around_its_start(start_ms: int) -> None:
    """By either status, for LiteLLM's database calls a stream that was cut a success."""
    call = {"id": "i", "litellm_call_id": "c", "status": "success", "startTime": start_ms / 1000, "endTime": AT}
    record = msgspec.json.decode(raw_value(call), type=RawRecord)
    record.source = "backfill"
    found = normalise(record, "acme", UNIT)
    near = range(max(0, start_ms - 2), start_ms + 3)
    around = {identity_of("litellm", "c", "i", status, str(at)) for status in ("success", "failure") for at in near}
    assert {found.identity, *found.twins} == around
    assert found.identity not in found.twins and len(found.twins) == len(around) - 1


def metered(**fields: Any) -> Usage:
    event = {"org_id": "org", "transaction_id": "t", "code": "seats", "at": NOON, **fields}
    envelope = {"v": 1, "source": "api", "shape": "metered", "received_at": NOON, "id_kind": "org", "call": {}}
    return normalise(msgspec.json.decode(json.dumps(envelope | {"metered": event}), type=RawRecord), "org", UNIT)


def test_usage_of_others_has_no_count_and_no_cost_and_any_moment_there_is() -> None:
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
