"""What is stored of an element: known fields with their own text, and no secret."""

from hashlib import sha256

import msgspec

from connectors.http.ingress.strip import strip
from schemas.wire import FLAT, RawRecord
from streams.core.customer_key import CUSTOMER_ID_FIELDS

KEY = "sk-1234567890"


def test_a_key_in_the_clear_is_stored_as_litellms_hash_of_it() -> None:
    element = b'{"id":"r","model":"m","spend":1.50e-05,"api_key":"%s"}' % KEY.encode()
    stripped = strip(element, FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    key, value = stripped
    assert KEY.encode() not in value
    assert msgspec.json.decode(value, type=RawRecord).call.api_key == key == sha256(KEY.encode()).hexdigest()
    assert b'"spend":1.50e-05' in value


def test_a_hash_stays_as_it_is() -> None:
    stripped = strip(b'{"id":"r","api_key":"5b3b"}', FLAT, 0, CUSTOMER_ID_FIELDS)
    assert stripped is not None and stripped[0] == "5b3b"
