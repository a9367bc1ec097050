"""Polls of a background response whose id LiteLLM encrypts again each time: which of them are one job."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.ingest.background_responses import answer_id_of
from connectors.ingest.raw_record import strip
from schemas.normalised_call import Usage
from schemas.rounding import quantum
from streams.core.metering.call_meaning import SEALED
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.job_id import is_sealed
from streams.core.metering.read_usage import usage_of

FOLDER = Path(__file__).parents[4] / "fixtures" / "polls"
RECEIVED_US = 1_795_900_000_000_000


def polls(recording: str) -> list[dict[str, Any]]:
    """The polls with a price of a background response, as LiteLLM posted them."""
    elements = json.loads((FOLDER / f"litellm_1.110.2__{recording}.json").read_text())
    return [one for one in elements if one["call_type"] == "aget_responses" and one["response_cost"]]


def read(element: dict[str, Any]) -> Usage:
    stored = strip(json.dumps(element).encode(), "slp", RECEIVED_US, CUSTOMER_ID_FIELDS)
    assert stored is not None
    return usage_of(stored[1], stored[0], quantum())


@pytest.mark.parametrize("recording", ["secure_ids", "response_excluded", "plain_ids"])
def test_polls_of_one_response_are_one_job(recording: str) -> None:
    found = [read(poll) for poll in polls(recording)]
    assert len({poll["id"] for poll in polls(recording)}) == (1 if recording == "plain_ids" else 3)
    assert len({usage.identity for usage in found}) == 1
    assert all(usage.job is usage.identity for usage in found)
    assert {usage.note for usage in found} == ({SEALED} if recording == "response_excluded" else {""})


@pytest.mark.parametrize(
    "changed",
    [
        lambda poll: {"response": poll["response"] | {"created_at": poll["response"]["created_at"] + 1}},
        lambda poll: {"response": poll["response"] | {"output": [{"id": "msg_other"}]}},
        lambda poll: {"metadata": poll["metadata"] | {"user_api_key_user_id": "somebody-else"}},
    ],
    ids=["made at another time", "other output", "other customer"],
)
def test_creation_time_output_and_customer_distinguish_two_responses_of_one_size(
    changed: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    poll = polls("secure_ids")[0]
    assert read(poll | changed(poll)).identity != read(poll).identity


@pytest.mark.parametrize(
    "changed",
    [
        {"total_tokens": 1501},
        {"completion_tokens": 501},
        {"response_cost": 0.00046},
        {"model": "openai/gpt-4o"},
        {"model_group": "another deployment"},
    ],
)
def test_without_the_answer_a_response_of_another_size_is_another_job(changed: dict[str, Any]) -> None:
    poll = polls("response_excluded")[0]
    assert read(poll | changed).identity != read(poll).identity


def test_only_encrypted_ids_are_replaced() -> None:
    """A provider's own id, and one that LiteLLM encoded with its deployment, identify their job."""
    assert is_sealed(polls("secure_ids")[0]["id"])
    assert is_sealed(polls("secure_ids")[0]["id"] + "_background_cost")
    assert not is_sealed(polls("plain_ids")[0]["id"])
    assert not is_sealed("resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b")


@pytest.mark.parametrize(
    "response",
    [None, "text", [], {"output": [{"id": "msg"}]}, {"created_at": "soon"}, {"created_at": 1, "output": "none"}],
)
def test_a_malformed_response_has_no_answer_id(response: object) -> None:
    assert answer_id_of(json.dumps({"response": response}).encode()) == ""


def test_no_part_of_the_answer_is_stored() -> None:
    poll = polls("secure_ids")[0]
    stored = strip(json.dumps(poll).encode(), "slp", RECEIVED_US, CUSTOMER_ID_FIELDS)
    assert stored is not None
    assert poll["response"]["output"][0]["id"].encode() not in stored[1]
    assert b'"response"' not in stored[1]
