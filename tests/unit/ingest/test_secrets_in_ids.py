"""An unhashed key is stored nowhere, no matter in which id field it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.raw_record import strip
from schemas.wire import FLAT, LAGO, CallMetadata
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

SECRET = "sk-proj-0123456789abcdef"
TOP = (
    *("api_key", "api_key_hash", "key_alias", "end_user", "user", "user_id", "team_id", "organization_id"),
    *("customer_id", "external_customer_id"),
)
INNER = tuple(name for name in CallMetadata.__struct_fields__ if name.startswith("user_api_key_"))


def stored(call: dict[str, object], route: str = FLAT) -> bytes:
    found = strip(json.dumps(call).encode(), route, 1, CUSTOMER_ID_FIELDS)
    assert found is not None
    return found[0].encode() + found[1]


@given(st.sampled_from(TOP), st.sets(st.sampled_from(TOP), max_size=2), st.booleans())
def test_a_key_in_a_field_of_the_call_is_hashed(name: str, others: set[str], has_metadata: bool) -> None:
    plain = dict.fromkeys(others - {"external_customer_id", "customer_id", "end_user"}, "acme")
    call = {"id": "x", "spend": "1", **plain, **({"metadata": {}} if has_metadata else {}), name: SECRET}
    assert SECRET.encode() not in stored(call)


@pytest.mark.parametrize("name", INNER)
def test_a_key_in_litellms_metadata_is_hashed(name: str) -> None:
    call = {"id": "x", "response_cost": 1, "end_user": "acme", "metadata": {name: SECRET}}
    assert SECRET.encode() not in stored(call)


def test_a_key_in_the_subscription_of_lagos_shape_is_hashed() -> None:
    event = {"transaction_id": "t", "external_subscription_id": SECRET, "code": "c", "precise_total_amount_cents": "1"}
    assert SECRET.encode() not in stored(event, LAGO)
