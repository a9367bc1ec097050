"""What is stored of an element: known fields with their original text, and no secret."""

import json
from hashlib import sha256

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from schemas.customer_id import normalise_customer_id
from schemas.wire import FLAT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

KEY = "sk-1234567890"


def test_an_api_key_is_stored_as_litellms_hash_of_it() -> None:
    element = b'{"id":"r","model":"m","spend":1.50e-05,"api_key":"%s"}' % KEY.encode()
    stripped = strip(element, FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    key, value = stripped
    assert KEY.encode() not in value
    assert msgspec.json.decode(value, type=RawRecord).call.api_key == key == sha256(KEY.encode()).hexdigest()
    assert b'"spend":1.50e-05' in value


HASH = "5b3bfae87dd2f9132d456ff081ac4531c0c84dfe0b03b35d5f45ce2d3d3ac764"


@pytest.mark.parametrize(
    ("value", "customer"), [(HASH, HASH), ("litellm_proxy_master_key", "unattributed:")], ids=["hash", "master key"]
)
def test_a_hash_is_stored_unchanged(value: str, customer: str) -> None:
    """LiteLLM's name for its master key is no secret, and names no customer."""
    stripped = strip(b'{"id":"r","spend":0.1,"api_key":"%s"}' % value.encode(), FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    assert stripped[0] == customer
    assert b'"api_key":"%s"' % value.encode() in stripped[1]


SECRETS = ("sk-1234567890", "Bearer sk-abcdef", " sk-xyz12345 ", "AIzaSyD-provider-key", "5b3b", "1_000")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["api_key", "api_key_hash", "metadata.user_api_key_hash"])
def test_a_value_in_a_key_hash_field_that_is_no_hash_is_hashed(place: str, secret: str) -> None:
    """A provider's key that is sent by mistake is stored nowhere, neither as a field nor as the customer."""
    name = place.rpartition(".")[2]
    call = {name: secret} if "." not in place else {"metadata": {name: secret}}
    stripped = strip(json.dumps({"id": "r", "spend": 0.1, **call}).encode(), FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    hashed = sha256(secret.strip().removeprefix("Bearer ").encode()).hexdigest()
    assert secret.strip().encode() not in stripped[1]
    assert hashed.encode() in stripped[1]
    assert stripped[0] in (hashed, "unattributed:")


@pytest.mark.parametrize("place", ["end_user", "user", "user_id", "key_alias", "customer_id", "user_api_key_alias"])
def test_a_name_that_looks_like_a_key_is_hashed(place: str) -> None:
    call = {"id": "r", "spend": 0.1} | ({place: KEY} if place[:8] != "user_api" else {"metadata": {place: KEY}})
    stripped = strip(json.dumps(call).encode(), FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    assert KEY.encode() not in stripped[1]
    assert KEY not in stripped[0]


def test_a_mapping_that_names_an_unhashed_key_finds_its_customer() -> None:
    stripped = strip(b'{"id":"r","spend":0.1,"api_key":"%s"}' % KEY.encode(), FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    assert normalise_customer_id(KEY) == stripped[0]
    assert normalise_customer_id("skate-shop") == "skate-shop"


def test_a_rejected_call_is_stored_without_its_key() -> None:
    with pytest.raises(InvalidElement) as caught:
        strip(b'{"id":"r","spend":"a lot","api_key":"%s"}' % KEY.encode(), FLAT, 0, CUSTOMER_ID_FIELDS)
    assert caught.value.call is not None
    assert KEY.encode() not in caught.value.call
