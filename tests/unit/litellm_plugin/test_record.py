"""What the plugin writes to the proxy's disk: no prompt, no answer, no error text and no key."""

import json
from pathlib import Path
from typing import Any

import pytest

from meterbridge_litellm.record import record

FIXTURES = Path(__file__).parents[2] / "fixtures" / "litellm"
CANARY = "canary-4711"
PAYLOAD: dict[str, Any] = json.loads((FIXTURES / "generic_api__1.109.1__chat-basic.json").read_text())


def poisoned(value: Any) -> Any:
    """The same shape with a marker in every text that is not needed for billing."""
    if isinstance(value, dict):
        return {name: poisoned(inner) for name, inner in value.items()} | {CANARY: CANARY}
    if isinstance(value, list):
        return [*map(poisoned, value), CANARY]
    return CANARY


@pytest.mark.parametrize(
    "field",
    ["messages", "response", "error_str", "error_information", "model_parameters", "hidden_params", "new_field"],
)
def test_no_prompt_and_no_answer_is_stored(field: str) -> None:
    assert CANARY.encode() not in record({**PAYLOAD, field: poisoned(PAYLOAD.get(field))}, ("tags", "metadata"))


def test_only_listed_members_of_the_metadata_are_stored() -> None:
    metadata = {
        "requester_metadata": {"x": CANARY},
        "prompt": CANARY,
        "usage_object": {"prompt": CANARY, "prompt_tokens_details": {"x": CANARY}},
    }
    kept = record({**PAYLOAD, "metadata": {**PAYLOAD["metadata"], **metadata}, "cost_breakdown": {"note": CANARY}})
    assert CANARY.encode() not in kept


def test_text_that_clients_write_is_stored_only_if_the_setting_asks_for_it() -> None:
    payload = {**PAYLOAD, "request_tags": [CANARY], "metadata": {"spend_logs_metadata": {"note": CANARY}}}
    assert CANARY.encode() not in record(payload)
    assert record(payload, ("tags", "metadata")).count(CANARY.encode()) == 2


def test_a_key_in_an_address_or_an_id_is_not_stored() -> None:
    kept = record(
        {
            **PAYLOAD,
            "api_base": "https://user:sk-pass@host.example:8443/v1?key=sk-query",
            "end_user": "sk-live-client",
            "metadata": {"user_api_key_hash": "plain-key-of-a-rejected-call"},
        }
    )
    assert b"sk-" not in kept and b"plain-key" not in kept
    assert json.loads(kept)["api_base"] == "https://host.example"


def test_a_record_is_one_line_of_ascii_and_a_tenth_of_the_payload() -> None:
    kept = record({**PAYLOAD, "end_user": "客户\n1"})
    assert len(kept) * 5 < len(json.dumps(PAYLOAD))
    assert kept.isascii() and b"\n" not in kept
    assert json.loads(kept)["end_user"] == "客户\n1"


def test_an_amount_keeps_the_text_that_litellm_writes() -> None:
    assert b'"response_cost":9.149999999999999e-06' in record({**PAYLOAD, "response_cost": 9.149999999999999e-06})
