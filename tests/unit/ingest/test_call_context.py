"""The context of a call that is kept for later analysis: names, numbers and hosts from allow-lists, never prompts or
answers.
"""

import json
from typing import Any

import msgspec
import pytest

from connectors.config.settings import load_settings
from connectors.ingest.call_context import ContextFields
from connectors.ingest.raw_record import Arrival, strip_arrived
from connectors.processes.usage_ingress import kept_by
from schemas.context import MAX_TAGS, MAX_TEXT, CallContext
from schemas.ledger import Position
from schemas.moments import to_iso
from schemas.wire import FLAT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from tests.support.calls import NOON, Raw
from tests.unit.streams.core.metering.test_fold import POLICY, subscribed

KEPT = ContextFields(("cost-centre:", "team:"), ("project", "env"))
CALL: dict[str, Any] = {
    "id": "x",
    "end_user": "c",
    "response_cost": 0.1,
    "total_tokens": 3,
    "startTime": NOON / 1e6 - 2,
    "endTime": NOON / 1e6,
    "completionStartTime": NOON / 1e6 - 1.75,
    "model_id": "deployment-a",
    "api_base": "https://user:pass@eu.api.example.com:8443/v1/chat?key=secret#part",
    "request_tags": ["cost-centre:42", "User-Agent: curl", "team:red", "teams", 7, None],
    "cost_breakdown": {"input_cost": 2.5e-05, "total_cost": 0.1, "service_tier": "flex", "additional_costs": {"x": 1}},
    "metadata": {
        "spend_logs_metadata": {"project": "p-1", "prompt": "secret", "env": {"x": 1}},
        "user_api_key_auth_metadata": {"env": "prod", "project": 7, "cost_center": "secret"},
        "usage_object": {"cache_creation_input_tokens": 1200, "prompt_tokens_details": {"cache_creation_tokens": 1200}},
    },
}
WHOLE = {
    "cost_breakdown": {"input_cost": 2.5e-05, "total_cost": 0.1},
    "time_to_first_token": 0.25,
    "model_id": "deployment-a",
    "server_address": "eu.api.example.com",
    "tags": ["cost-centre:42", "team:red"],
    "spend_logs_metadata": {"project": "p-1"},
    "key_metadata": {"env": "prod", "project": "7"},
    "cache_creation_input_tokens": 1200,
}


def stored_with(kept: ContextFields, **changes: Any) -> bytes:
    stored = strip_arrived(json.dumps(CALL | changes).encode(), FLAT, Arrival(NOON, CUSTOMER_ID_FIELDS, kept=kept))
    assert stored is not None
    return stored[1]


def context_of(value: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(value, type=RawRecord).context
    return {} if found is msgspec.UNSET else msgspec.json.decode(found)


@pytest.mark.parametrize("odd", [{}, {"total_tokens": "3"}], ids=["sound", "field by field"])
def test_both_ways_of_reading_a_call_give_the_same_context(odd: dict[str, Any]) -> None:
    value = stored_with(KEPT, **odd)
    assert context_of(value) == WHOLE
    assert b"secret" not in value


BY_DEFAULT = {
    name: value for name, value in WHOLE.items() if name not in ("tags", "spend_logs_metadata", "key_metadata")
}


@pytest.mark.parametrize("odd", [{}, {"total_tokens": "3"}], ids=["sound", "field by field"])
@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({}, {}),
        ({"KEPT_TAG_PREFIXES": "team:"}, {"tags": ["team:red"]}),
        ({"KEPT_TAG_PREFIXES": "x:, cost"}, {"tags": ["cost-centre:42"]}),
        ({"KEPT_METADATA": "env"}, {"key_metadata": {"env": "prod"}}),
        (
            {"KEPT_METADATA": "cost_center, project"},
            {"spend_logs_metadata": {"project": "p-1"}, "key_metadata": {"project": "7", "cost_center": "secret"}},
        ),
    ],
)
def test_only_the_listed_tags_and_metadata_keys_are_kept(
    odd: dict[str, Any], environ: dict[str, str], kept: dict[str, Any]
) -> None:
    """By default none are kept: clients write tags and metadata."""
    context = context_of(stored_with(kept_by(load_settings(environ)), **odd))
    assert context == BY_DEFAULT | kept


def test_an_enriched_record_contains_the_context() -> None:
    record = Raw(0, NOON // 1000, b"c", stored_with(KEPT))
    changes = Fold(POLICY, "")(LedgerState(Position()), [record], subscribed)
    [(_, enriched)] = changes.enriched
    context = msgspec.convert(msgspec.json.decode(enriched)["context"], CallContext)
    assert context.server_address == "eu.api.example.com"
    assert (context.time_to_first_token, context.key_metadata["env"]) == (0.25, "prod")


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"completionStartTime": to_iso(NOON - 1_750_000)}, {}),
        ({"completionStartTime": NOON / 1e6 - 3}, {"time_to_first_token": None}),
        ({"completionStartTime": "soon"}, {"time_to_first_token": None}),
        ({"completionStartTime": None}, {"time_to_first_token": None}),
        ({"api_base": "eu.api.example.com/v1"}, {"server_address": None}),
        ({"api_base": " HTTPS://EU.api.example.com"}, {}),
        ({"api_base": "not a host"}, {"server_address": None}),
        ({"api_base": {"x": 1}}, {"server_address": None}),
        ({"model_id": "m" * (MAX_TEXT + 1)}, {"model_id": None}),
        ({"model_id": ["m"]}, {"model_id": None}),
        ({"cost_breakdown": {"input_cost": "a lot", "total_cost": 0.1}}, {"cost_breakdown": {"total_cost": 0.1}}),
        ({"cost_breakdown": {"input_cost": [1]}}, {"cost_breakdown": None}),
        ({"cost_breakdown": "none"}, {"cost_breakdown": None}),
        ({"request_tags": '["team:red"]'}, {"tags": ["team:red"]}),
        ({"request_tags": {"team:": 1}}, {"tags": None}),
        ({"request_tags": ["team:" + "x" * MAX_TEXT]}, {"tags": None}),
        ({"request_tags": ["team:x"] * 99}, {"tags": ["team:x"] * MAX_TAGS}),
    ],
)
def test_a_malformed_field_of_the_context_loses_only_itself(changes: dict[str, Any], left: dict[str, Any]) -> None:
    expected = {name: value for name, value in (WHOLE | left).items() if value is not None}
    if changes.get("completionStartTime") == to_iso(NOON - 1_750_000):
        changes = {**changes, "startTime": to_iso(NOON - 2_000_000)}
    assert context_of(stored_with(KEPT, **changes)) == expected


def test_every_field_of_the_context_is_filled_from_a_call() -> None:
    """A field that the ingress does not read would be empty for each real call, but full in tests that build records
    themselves.
    """
    failed = {"status": "failure", "error_information": {"error_code": "429", "error_class": "RateLimitError"}}
    filled = context_of(stored_with(KEPT)) | context_of(stored_with(KEPT, **failed))
    assert filled.keys() == set(CallContext.__struct_fields__)
