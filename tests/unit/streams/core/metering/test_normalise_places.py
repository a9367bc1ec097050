"""Where each shape has each field of a call, which place is preferred, and the default if none has it."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.errors import Rejected
from schemas.moments import SECOND_US
from schemas.normalised_call import Usage
from schemas.wire import RawRecord
from streams.core.metering.normalise import normalise
from tests.support.calls import NOON, raw_value

UNIT = Decimal("1e-12")

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
        "call_id": ["litellm_call_id"],
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
    """The call with each value in its place; `a.b` is `b` inside `a`."""
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
def test_a_missing_total_is_the_sum_and_an_existing_one_is_kept(shape: str) -> None:
    first = {field: places[0] for field, places in COUNTS[shape].items()}
    both = {first["tokens_input"]: 3, first["tokens_output"]: 4}
    assert placed(shape, both).total_tokens == 7
    assert placed(shape, both | {first["total_tokens"]: 9}).total_tokens == 9


@pytest.mark.parametrize("shape", ["slp", "integration"])
@pytest.mark.parametrize(
    ("told", "hit"), [(True, True), ("True", True), ("1", True), (False, False), ("False", False), (None, False)]
)
def test_a_cache_hit_is_recognised_in_every_place(shape: str, told: object, hit: bool) -> None:
    assert placed(shape, {"cache_hit": told}).cache_hit is hit
    assert placed(shape, {}).cache_hit is False


@pytest.mark.parametrize("shape", ["slp", "integration"])
def test_the_owner_of_the_key_is_read(shape: str) -> None:
    assert [placed(shape, {"byok": result}).byok for result in (True, False, None)] == [True, False, False]


@pytest.mark.parametrize("shape", COUNTS)
def test_a_call_without_a_status_succeeded(shape: str) -> None:
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
def test_start_and_end_are_read_or_replaced_by_each_other(times: dict[str, Any], start: int, end: int) -> None:
    found = placed("slp", times)
    assert (found.start_us, found.end_us) == (start * SECOND_US, end * SECOND_US)


@pytest.mark.parametrize("shape", ["integration", "lago"])
def test_a_single_time_is_start_and_end_and_without_any_the_time_of_receipt_is(shape: str) -> None:
    for result, at in ((AT - 7, AT - 7), (None, AT), ("", AT)):
        found = placed(shape, {"timestamp": result})
        assert (found.start_us, found.end_us) == (at * SECOND_US, at * SECOND_US)


@pytest.mark.parametrize(
    "times", [{"startTime": AT - 5}, {"endTime": AT - 5}, {"startTime": AT - 5, "endTime": AT - 5}]
)
def test_an_integration_payload_with_litellms_times_is_read_as_litellms(times: dict[str, Any]) -> None:
    found = placed("integration", {"timestamp": None, **times})
    assert (found.start_us, found.end_us) == (AT * SECOND_US - 5 * SECOND_US,) * 2
    assert found.twins is not None
    assert len(found.twins.kept) == ("startTime" in times), "by what releases before called it"
    assert placed("integration", times).end_us == NOON, "its own moment counts"


def test_one_of_two_ids_is_sufficient_and_without_both_the_call_is_refused() -> None:
    with pytest.raises(Rejected, match="no id of the call") as refused:
        placed("slp", {"id": ""})
    assert refused.value.reason == "no_identity"
    assert placed("slp", {"id": "", "litellm_call_id": "c"}).identity
    for shape, place in (("lago", "transaction_id"), ("cloudevent", "cloud_event.id")):
        with pytest.raises(Rejected) as refused:
            placed(shape, {place: ""})
        assert refused.value.reason == "no_identity"
