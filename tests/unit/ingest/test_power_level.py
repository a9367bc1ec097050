"""The power level of a call: a plain word from one of three places is stored with the call; nothing else of these
places is stored.
"""

import json
from typing import Any

import pytest

from connectors.ingest.call_context import ContextFields
from connectors.ingest.raw_record import Arrival, strip, strip_arrived
from tests.support.calls import NOON

FIELDS = ("end_user",)
CALL = {"id": "c1", "model": "gpt-4o", "end_user": "acme", "response_cost": 0.1, "startTime": 1.0, "endTime": 2.0}


def stored(**fields: Any) -> dict[str, Any]:
    element = json.dumps({**CALL, **fields}).encode()
    found = strip(element, "slp", NOON, FIELDS)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"metadata": {"power_level": "eco"}}, "eco"),
        ({"metadata": {"power_level": " Precision "}}, "precision"),
        ({"metadata": {"spend_logs_metadata": {"power_level": "eco", "secret": "s"}}}, "eco"),
        ({"metadata": {"spend_logs_metadata": json.dumps({"power_level": "eco"})}}, "eco"),
        ({"request_tags": ["User-Agent: x", "power:eco", "power:precision"]}, "eco"),
        ({"request_tags": json.dumps(["power:eco"])}, "eco"),
        (
            {
                "metadata": {"power_level": "eco", "spend_logs_metadata": {"power_level": "x"}},
                "request_tags": ["power:y"],
            },
            "eco",
        ),
        ({"metadata": {"power_level": 7, "spend_logs_metadata": {"power_level": "x"}}}, "x"),
        ({"metadata": {"power_level": "two words"}}, ""),
        ({"metadata": {"power_level": "e" * 33}}, ""),
        ({"metadata": {"power_level": {"eco": 1}}}, ""),
        ({"metadata": {"spend_logs_metadata": "power, no JSON"}}, ""),
        ({"request_tags": {"power:eco": 1}}, ""),
        ({"request_tags": ["power:"]}, ""),
        ({"metadata": None, "request_tags": None}, ""),
        ({}, ""),
    ],
)
def test_the_level_is_the_first_plain_word(fields: dict[str, Any], level: str) -> None:
    record = stored(**fields)
    assert record.get("power_level", "") == level
    assert ("power_level" in record) is bool(level)
    assert not {"request_tags", "spend_logs_metadata", "power_level"} & {
        *record["call"],
        *(record["call"].get("metadata") or {}),
    }
    assert "context" not in record and b"secret" not in json.dumps(record).encode()


def test_a_call_that_is_read_field_by_field_keeps_its_level() -> None:
    """Such a call has a malformed detail."""
    record = stored(metadata={"power_level": "eco"}, completion_tokens="many")
    assert (record["note"], record["power_level"]) == ("odd: completion_tokens", "eco")


def test_listed_tags_and_metadata_are_stored_together_with_the_level() -> None:
    kept = ContextFields(("team:",), ("project",))
    fields = {"metadata": {"spend_logs_metadata": {"power_level": "eco", "project": "p"}}, "request_tags": ["team:a"]}
    found = strip_arrived(json.dumps({**CALL, **fields}).encode(), "slp", Arrival(NOON, FIELDS, kept=kept))
    assert found is not None
    record = json.loads(found[1])
    assert record["power_level"] == "eco"
    assert record["context"] == {"tags": ["team:a"], "spend_logs_metadata": {"project": "p"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"power_level": "eco"}},
        {"request_tags": ["power:eco"]},
        {"metadata": {"spend_logs_metadata": {"power_level": "eco"}}},
        {"metadata": {"spend_logs_metadata": {"customer": "a prompt"}}, "request_tags": ["a tag"]},
        {},
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_an_element_of_an_array_and_a_body_of_its_own_give_the_same_record(
    fields: dict[str, Any], *, escaped: bool
) -> None:
    """In a body of its own the word of a level is searched for; letters in a key or a tag may be escaped."""
    element = json.dumps({**CALL, **fields}).encode()
    if escaped:
        element = element.replace(b"power", b"\\u0070ower")
    single = strip(element, "slp", NOON, FIELDS)
    assert single == strip(memoryview(element), "slp", NOON, FIELDS)
    assert single is not None
    assert json.loads(single[1]).get("power_level", "") == ("eco" if b"eco" in element else "")
    assert b"prompt" not in single[1]
    assert b"a tag" not in single[1]
