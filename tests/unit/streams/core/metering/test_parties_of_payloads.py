"""A call that names its customer directly has the same tokens and parties as one that LiteLLM names: a rate card prices cached
tokens and teams, and windows may be grouped by them.
"""

import json
from decimal import Decimal
from typing import Any

import pytest

from connectors.ingest.raw_record import strip
from schemas.normalised_call import Usage
from schemas.rounding import quantum
from schemas.wire import FLAT, INTEGRATION
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.read_usage import usage_of
from tests.support.calls import NOON
from tests.support.rate_cards import card, entry, price_of

PARTIES: dict[str, Any] = {
    "end_user": "acme",
    "user_id": "u",
    "team_id": "t",
    "organization_id": "o",
    "key_alias": "k",
    "model_group": "g",
}
CALL: dict[str, Any] = {
    "request_id": "r",
    "model": "m",
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "cached_tokens": 60,
    "reasoning_tokens": 20,
    "cost_usd": 1,
    **PARTIES,
}
IN_METADATA: dict[str, Any] = {
    "request_id": "r",
    "model": "m",
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "cost_usd": 1,
    "model_group": "g",
    "metadata": {
        "user_api_key_end_user_id": "acme",
        "user_api_key_user_id": "u",
        "user_api_key_team_id": "t",
        "user_api_key_org_id": "o",
        "user_api_key_project_id": "p",
        "user_api_key_alias": "k",
        "usage_object": {
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
    },
}


def usage(call: dict[str, Any]) -> Usage:
    stored = strip(json.dumps(call).encode(), FLAT, NOON, CUSTOMER_ID_FIELDS)
    assert stored is not None
    read = usage_of(stored[1], stored[0], quantum())
    assert read.shape == INTEGRATION
    return read


@pytest.mark.parametrize("call", [CALL, IN_METADATA], ids=["top level", "metadata"])
@pytest.mark.parametrize("times", [{}, {"timestamp": NOON / 1e6}, {"startTime": NOON / 1e6, "endTime": NOON / 1e6}])
def test_a_named_customer_changes_neither_tokens_nor_parties(call: dict[str, Any], times: dict[str, Any]) -> None:
    read = usage({**call, "customer_id": "acme", **times})
    assert (read.cached_tokens, read.reasoning_tokens) == (60, 20)
    assert {name: getattr(read, name) for name in PARTIES} == PARTIES
    assert read.project_id == ("p" if "metadata" in call else "")


def test_a_rate_card_prices_its_cached_tokens_and_its_team() -> None:
    prices = card(entry(input="10", cached="1", output="0"), team={"t": "0.5"})
    read = usage({**CALL, "customer_id": "acme", "timestamp": NOON / 1e6})
    assert price_of(prices, read) == Decimal("0.00023")
