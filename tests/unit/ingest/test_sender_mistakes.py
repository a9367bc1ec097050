"""Probable mistakes of senders are named in the call's note too, and none is found in what LiteLLM sends."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.ingest.body_splitter import split, wrapped_in
from connectors.ingest.raw_record import Arrival, strip_noticing
from schemas.wire import BACKFILL, CLOUDEVENT, FLAT, INTEGRATION, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

NOW_US = 1_795_215_900_000_000
RECORDED = Path(__file__).parents[2] / "fixtures" / "litellm"
BODIES = sorted(path for path in RECORDED.glob("*.json") if not path.name.endswith(".headers.json"))


def taken(call: Any, shape: str = INTEGRATION, source: str = "webhook") -> tuple[RawRecord, str]:
    """Return the stored record of a call, and what the answer says of it."""
    arrival = Arrival(NOW_US, CUSTOMER_ID_FIELDS, source)
    stripped = strip_noticing(json.dumps(call).encode(), shape, arrival)
    assert stripped is not None
    return msgspec.json.decode(stripped[1], type=RawRecord), stripped[2]


def test_the_note_of_the_call_names_the_field_for_the_operator() -> None:
    call = {"id": "a", "model": "m", "customer_id": "c", "costusd": "0.5", "tokens_input": 3, "timestamp": 5}
    record, left_out = taken(call)
    assert record.note == "odd: timestamp, costusd"
    assert left_out.startswith("`timestamp` is more than a year ago") and "did you mean `cost_usd`?" in left_out


def test_an_old_call_of_a_backfill_is_no_mistake() -> None:
    call = {"request_id": "a", "spend": 0.5, "end_user": "c", "endTime": "2020-01-01T00:00:00"}
    record, left_out = taken(call, FLAT, BACKFILL)
    assert (record.note, left_out) == ("", "")


@pytest.mark.parametrize("name", ["x" * 41 + "cost", "cost\u0000", "c\u00f6st", "sk-\ncost"])
def test_a_name_that_could_hold_anything_is_not_repeated(name: str) -> None:
    record, left_out = taken({"id": "a", "model": "m", "customer_id": "c", name: 0.5, "timestamp": NOW_US // 1_000_000})
    assert (record.note, left_out) == ("", "")


@pytest.mark.parametrize("path", BODIES, ids=lambda path: path.stem)
def test_nothing_that_litellm_sends_is_taken_for_a_mistake(path: Path) -> None:
    for element in split(path.read_bytes()):
        shape = CLOUDEVENT if "openmeter" in path.name else FLAT
        stripped = strip_noticing(wrapped_in(element) or element, shape, Arrival(NOW_US, CUSTOMER_ID_FIELDS))
        assert stripped is None or not any(words in stripped[2] for words in ("did you mean", "is empty"))
