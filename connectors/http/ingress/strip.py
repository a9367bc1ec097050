"""An element becomes the record that is stored: the allow-list takes prompts and answers away here,
before the first durable byte.
"""

from hashlib import sha256

import msgspec
from msgspec import Raw

from connectors.http.ingress.bodies import Element
from connectors.http.ingress.rejections import MAX_RECORD_BYTES, TOO_LARGE, Refused
from connectors.http.ingress.salvage import salvage
from schemas.wire import CLOUDEVENT, ENVELOPE_VERSION, Call, CloudEvent, StoredCall, StoredCloudEvent
from streams.core.customer_key import customer_of, shape_of


class _Envelope(msgspec.Struct, gc=False):
    """RawRecord with the call as it is stored."""

    v: int
    source: str
    shape: str
    received_at: int
    id_kind: str
    call: Raw


#: How LiteLLM's virtual keys begin; in its own payloads they are SHA-256 hashes already.
_CLEAR_KEY = "sk-"

_stored = msgspec.json.Decoder(StoredCall).decode
_stored_event = msgspec.json.Decoder(StoredCloudEvent).decode
_call = msgspec.json.Decoder(Call).decode
_encode = msgspec.json.Encoder().encode


def strip(
    element: Element, otherwise: str, received_at: int, fields: tuple[str, ...], source: str = "webhook"
) -> tuple[str, bytes] | None:
    """The Kafka key (normalised customer id) and the value (JSON of `RawRecord`) of one element.

    Args:
        otherwise: the shape of an element that does not show its own.
        received_at: microseconds since 1970 UTC.
        fields: `CUSTOMER_ID_FIELDS`.

    Returns:
        None for a `null` element, which is no call.

    Raises:
        Refused: the element goes to the rejected topic.
    """
    try:
        text = _encode(_stored(element)) if otherwise != CLOUDEVENT else _as_call(_encode(_stored_event(element)))
        call = _call(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        salvaged = _salvaged(element, otherwise)
        if salvaged is None:
            return None
        text, call = salvaged, _call(salvaged)
    if isinstance(call.api_key, str) and call.api_key.startswith(_CLEAR_KEY):
        text, call = _with_hashed_key(text, call.api_key)
    shape = shape_of(call, otherwise)
    customer_id, id_kind = customer_of(shape, call, fields)
    value = _encode(_Envelope(ENVELOPE_VERSION, source, shape, received_at, id_kind, Raw(text)))
    if len(value) > MAX_RECORD_BYTES:
        raise Refused(TOO_LARGE, f"over {MAX_RECORD_BYTES} bytes without prompts")
    return customer_id, value


def _as_call(event: bytes) -> bytes:
    """A CloudEvent as the one field of a call."""
    return b'{"cloud_event":%b}' % event


def _salvaged(element: Element, otherwise: str) -> bytes | None:
    if otherwise != CLOUDEVENT:
        return salvage(bytes(memoryview(element)))
    try:
        event = salvage(bytes(memoryview(element)), CloudEvent)
    except Refused as refused:
        refused.call = _as_call(refused.call) if refused.call is not None else None
        raise
    return _as_call(event) if event is not None else None


def _with_hashed_key(text: bytes, key: str) -> tuple[bytes, Call]:
    """A sender that names the key itself instead of its hash: LiteLLM's hash of it is stored, not the secret."""
    stored = _stored(text)
    stored.api_key = Raw(_encode(sha256(key.encode()).hexdigest()))  # type: ignore[attr-defined]
    hashed = _encode(stored)
    return hashed, _call(hashed)


def customer_of_rest(refused: Refused, otherwise: str, fields: tuple[str, ...]) -> str | None:
    """The customer id that the sound rest of a refused element still names; None when nothing is left of it."""
    if refused.call is None:
        return None
    call = _call(refused.call)
    return customer_of(shape_of(call, otherwise), call, fields)[0]
