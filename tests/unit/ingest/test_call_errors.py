"""A failed call is kept with its status code and exception name, without the provider's message."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.call_context import ContextFields
from connectors.ingest.call_errors import error_members
from connectors.ingest.raw_record import Arrival, strip_arrived
from schemas.context import CallContext
from schemas.wire import SLP, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.calls import NOON

FIXTURES = Path(__file__).parents[2] / "fixtures" / "litellm"
PROMPT_TEXT = "what the prompt was"


def kept_of(element: dict[str, Any], raw: str = "") -> CallContext:
    arrival = Arrival(NOON, CUSTOMER_ID_FIELDS, kept=ContextFields())
    stored = strip_arrived((raw or json.dumps(element)).encode(), SLP, arrival)
    assert stored is not None and PROMPT_TEXT.encode() not in stored[1] and b"traceback" not in stored[1]
    record = msgspec.json.decode(stored[1], type=RawRecord)
    return msgspec.json.decode(record.context, type=CallContext) if record.context else CallContext()


def recorded() -> list[dict[str, Any]]:
    """Every element that was recorded from LiteLLM."""
    elements: list[dict[str, Any]] = []
    for path in sorted(FIXTURES.glob("generic_api__*.json")):
        if path.name.endswith(".headers.json"):
            continue
        body = json.loads(path.read_text())
        elements += [one for one in (body if isinstance(body, list) else [body]) if isinstance(one, dict)]
    return elements


def test_every_recorded_failure_has_its_code_and_exception_and_no_success_has_any() -> None:
    found = 0
    for element in recorded():
        error, kept = element.get("error_information") or {}, kept_of(element)
        if element.get("status") == "failure" and error.get("error_class"):
            found += 1
            assert (kept.error_code, kept.error_class) == (error["error_code"], error["error_class"])
        else:
            assert (kept.error_code, kept.error_class) == ("", "")
    assert found >= 10


ODD: list[Any] = [
    None,
    7,
    PROMPT_TEXT,
    [PROMPT_TEXT],
    {},
    {"error_class": PROMPT_TEXT},
    {"error_class": [PROMPT_TEXT]},
    {"error_code": {"x": PROMPT_TEXT}},
]


@pytest.mark.parametrize("error", [*ODD, {"error_class": "A" * 65}, {"error_message": PROMPT_TEXT}], ids=str)
def test_an_unusual_code_or_exception_is_left_out_and_the_call_is_stored(error: Any) -> None:
    element = {"id": "x", "status": "failure", "end_user": "c", "response_cost": 0.1, "error_information": error}
    assert kept_of(element) == CallContext()
    damaged = json.dumps(element).replace('"status"', '"x": NaN, "status"')
    assert kept_of(element, damaged) == CallContext()


def test_a_number_is_a_code_too_and_also_in_damaged_json() -> None:
    element = {"id": "x", "status": "failure", "end_user": "c", "response_cost": 0.1}
    element["error_information"] = {"error_code": 429, "error_class": "RateLimitError", "error_message": PROMPT_TEXT}
    assert kept_of(element) == CallContext(error_code="429", error_class="RateLimitError")
    damaged = json.dumps(element).replace('"status"', '"x": NaN, "status"')
    assert kept_of(element, damaged) == CallContext(error_code="429", error_class="RateLimitError")


@given(st.binary(max_size=60))
def test_any_input_bytes_give_valid_json_members_or_none(written: bytes) -> None:
    members = error_members(msgspec.Raw(written))
    json.loads(b"{%b}" % b",".join(members))
