"""The ingress stores the plugin's record of a call byte for byte like the full payload of the `generic_api` callback.

So a call that both report is one call, and is billed the same by either.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from connectors.ingest.call_context import ContextFields
from connectors.ingest.raw_record import Arrival, strip_arrived
from connectors.ingest.rejection_record import InvalidElement
from meterbridge_litellm import record as plugin
from schemas import wire
from schemas.bounded_name import bounded_name
from schemas.customer_id import key_hash, normalise_customer_id
from streams.core.metering.call_kinds import READS
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

FIXTURES = Path(__file__).parents[1] / "fixtures" / "litellm"
BODIES = sorted(path for path in FIXTURES.glob("generic_api__*.json") if not path.name.endswith(".headers.json"))
ALL = ContextFields(("User-Agent", "team:"), ("env", "cost_center", "plan"))


def payloads(path: Path) -> list[dict[str, Any]]:
    """The elements of a recorded body: an array, an object or NDJSON."""
    text = path.read_text()
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = [json.loads(line) for line in text.splitlines()]
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]


def stored(element: bytes, kept: ContextFields) -> tuple[str, bytes] | str | None:
    try:
        return strip_arrived(element, wire.FLAT, Arrival(1, tuple(CUSTOMER_ID_FIELDS), kept=kept))
    except InvalidElement as refused:
        return refused.reason


@pytest.mark.parametrize("path", BODIES, ids=lambda path: path.stem.removeprefix("generic_api__"))
def test_the_ingress_stores_the_same_bytes_for_both(path: Path) -> None:
    for payload in payloads(path):
        whole = json.dumps(payload).encode()
        assert stored(plugin.record(payload), ContextFields()) == stored(whole, ContextFields())
        assert stored(plugin.record(payload, ("tags", "metadata")), ALL) == stored(whole, ALL)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"power_level": "eco"}},
        {"metadata": {"spend_logs_metadata": {"power_level": "Eco", "note": "canary"}}},
        {"metadata": {"power_level": "the canary", "spend_logs_metadata": {"power_level": {"canary": 1}}}},
        {"request_tags": ["canary", "power:eco", "power:precision"]},
        {"request_tags": ["canary"], "metadata": {"spend_logs_metadata": {"note": "canary"}}},
    ],
)
def test_a_power_level_is_stored_from_every_place_in_a_call(change: dict[str, Any]) -> None:
    payload = {**payloads(FIXTURES / "generic_api__1.109.1__chat-basic.json")[0], **change}
    kept = plugin.record(payload)
    assert stored(kept, ContextFields()) == stored(json.dumps(payload).encode(), ContextFields())
    assert b"canary" not in kept


def test_there_are_enough_payloads() -> None:
    found = [payload for path in BODIES for payload in payloads(path)]
    assert len(found) > 80
    assert {payload["status"] for payload in found} == {"success", "failure"}


def test_a_read_of_a_background_response_keeps_its_answer_id() -> None:
    payload = {
        **payloads(FIXTURES / "generic_api__1.109.1__chat-basic.json")[0],
        "call_type": "aget_responses",
        "response": {"created_at": 1795214378, "output": [{"id": "msg_1", "content": "secret"}], "model": "x"},
    }
    of_plugin, whole = plugin.record(payload), json.dumps(payload).encode()
    assert stored(of_plugin, ContextFields()) == stored(whole, ContextFields())
    assert b"answer_id" in stored(of_plugin, ContextFields())[1]  # type: ignore[index]
    assert b"secret" not in of_plugin


def test_the_plugin_and_the_ingress_have_the_same_lists() -> None:
    of_call = {*wire.Call.__struct_fields__, *wire.CONTEXT_FIELDS}
    assert {*plugin._FIELDS} <= of_call
    # fields that a StandardLoggingPayload never has, and fields computed from others
    of_others = re.compile(
        r"request_id|spend|user|user_id|team_id|organization_id|api_key|key_alias|cached_tokens|reasoning_tokens|byok|event_type|"
        r"timestamp|customer_id|provider|tokens_\w+|cost_usd|api_key_hash|answer_id|transaction_id|external_\w+|code|precise_\w+|"
        r"properties|cloud_event|cost|currency|carried_cost|metadata|cost_breakdown|api_base"
    )
    assert {name for name in of_call - {*plugin._FIELDS} if not of_others.fullmatch(name)} == set()
    assert {*plugin._METADATA} == ({*wire.CallMetadata.__struct_fields__} | {"power_level"}) - {"usage_object"}
    assert {*plugin._USAGE} == {*wire.UsageObject.__struct_fields__} - {
        "prompt_tokens_details",
        "completion_tokens_details",
    }
    assert {*plugin._DETAILS} == {*wire.TokenDetails.__struct_fields__}
    assert {*plugin._COSTS} == {*wire.COSTS}
    assert {*plugin._READS} == {*READS}


@pytest.mark.parametrize(
    "text", ["sk-abcdef", "Bearer sk-abcdef", "abc", "f" * 64, "litellm_proxy_master_key", "", " x "]
)
def test_a_key_is_hashed_like_by_the_ingress(text: str) -> None:
    kept = json.loads(plugin.record({"id": "1", "metadata": {"user_api_key_hash": text}}))
    assert key_hash(kept["metadata"]["user_api_key_hash"]) == key_hash(text)
    assert "sk-" not in json.dumps(kept)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "ä" * 5000,
        " " * 5000,
        " " * 5000 + "ada",
        "sk-" + "a" * 5000,
        "e\u0301\0" * 4000,
        "\ud800" * 5000,
    ],
)
@pytest.mark.parametrize("field", ["end_user", "user_api_key_user_id"])
def test_a_very_long_name_is_the_same_customer_in_a_small_record(field: str, text: str) -> None:
    given = {"id": "1", "end_user": text, "metadata": {"user_api_key_user_id": text}}
    created = plugin.record(given)
    call = json.loads(created)
    kept = {**call, **call["metadata"]}[field]
    assert normalise_customer_id(kept) == normalise_customer_id(text)
    assert len(created) < 1000


@pytest.mark.parametrize("field", ["model", "model_group"])
def test_a_very_long_name_of_a_model_is_one_name_in_a_small_record(field: str) -> None:
    """A client could fill the ring with some requests for models that do not exist."""
    text = "é" * 1_000_000
    created = plugin.record({"id": "1", field: text})
    assert json.loads(created)[field] == bounded_name(text)
    assert len(created) < 1000
    assert json.loads(plugin.record({"id": "1", field: "m" * 4096}))[field] == "m" * 4096


def test_tags_that_the_ingress_ignores_are_left_out_of_the_record() -> None:
    payload = {**payloads(FIXTURES / "generic_api__1.109.1__chat-basic.json")[0]}
    payload["request_tags"] = ["team:red", "team:" + "x" * 200, "team:" + "y" * 123, 7]
    created = plugin.record(payload, ("tags", "metadata"))
    assert stored(created, ALL) == stored(json.dumps(payload).encode(), ALL)
    payload["request_tags"].append("team:" + "z" * 1_000_000)
    assert plugin.record(payload, ("tags", "metadata")) == created
