"""CloudEvents over HTTP (cloudevents.io, HTTP binding 1.0.2): in binary mode the attributes are headers, the body is the data.

In structured and batch mode the whole event is in the body, as any other element.
"""

from base64 import b64decode
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from connectors.ingest.body_splitter import Element, members_of
from schemas.decoding import UNDECODABLE
from streams.core.metering.tolerant_reader import clean

#: How the media types of structured and batch mode begin.
_EVENTS = "application/cloudevents"
_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time")
_PREFIX = "ce-"

#: Together with an id this makes data a call of LiteLLM's own words.
_CALL_TYPE, _IDS = "call_type", ("litellm_call_id", "id", "request_id")

_encode = msgspec.json.Encoder().encode
_text = msgspec.json.Decoder(str).decode


def holds_events(headers: Mapping[str, str]) -> bool:
    """Structured or batch mode: the body is one event, or an array of them."""
    return headers.get("Content-Type", "")[: len(_EVENTS)].lower() == _EVENTS


def event_of(headers: Mapping[str, str], body: bytes) -> bytes | None:
    """The event of binary mode as one JSON object; None where the headers tell of none, or repeat what
    the body tells: the media type decides (3.1).

    A header's value is percent-encoded (3.1.3.2). What the body holds is not looked at: it has to be JSON.
    """
    if ("ce-specversion" not in headers and "ce-id" not in headers) or holds_events(headers):
        return None
    told = {name: clean(unquote(value)) for name in _ATTRIBUTES if (value := headers.get(_PREFIX + name)) is not None}
    return _encode(told)[:-1] + b',"data":' + (body.strip() or b"null") + b"}"


def call_in(element: Element) -> bytes | None:
    """The call of LiteLLM's own words that an event carries as its data; None where it carries something else.

    It is that call, with its kind, its status and its identity, as on every other way in. The event's subject is its
    customer, unless it says so itself.
    """
    event = members_of(memoryview(element)) or {}
    call = _data_of(event)
    inside = members_of(memoryview(call)) if call[:1] == b"{" else None
    if (
        inside is None
        or "specversion" in inside
        or _CALL_TYPE not in inside
        or not any(name in inside for name in _IDS)
    ):
        return None
    subject = bytes(event.get("subject", b"null"))
    if subject == b"null" or "customer_id" in inside:
        return call
    return b'{"customer_id":%b,%b' % (subject, call[1:])


def _data_of(event: Mapping[str, memoryview]) -> bytes:
    """The data as JSON: an object, one in a text, or one in base64; `b""` where they are none of it."""
    try:
        if (encoded := event.get("data_base64")) is not None and bytes(event.get("data", b"null")) == b"null":
            return b64decode(_text(encoded), validate=True).strip()
        data = bytes(event.get("data", b"")).strip()
        return _text(data).encode().strip() if data[:1] == b'"' else data
    except (*UNDECODABLE, ValueError):
        return b""
