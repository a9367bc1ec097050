"""CloudEvents over HTTP (cloudevents.io, HTTP binding 1.0.2). In binary mode the attributes are headers, and the body is the data.

In structured and batch mode the whole event is in the body, as any other element.
"""

from base64 import b64decode
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec
from aiohttp.hdrs import CONTENT_TYPE
from multidict import istr

from connectors.ingest.body_splitter import Element, members_of
from schemas.decoding import UNDECODABLE
from streams.core.metering.tolerant_reader import clean

#: Beginning of the media types of structured and batch mode.
_EVENTS = "application/cloudevents"
_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time")
_PREFIX = "ce-"
_CE_VERSION, _CE_ID = istr("ce-specversion"), istr("ce-id")

#: With one of these ids, a `call_type` makes the data a call in LiteLLM's own form.
_CALL_TYPE, _IDS = "call_type", ("litellm_call_id", "id", "request_id")

_encode = msgspec.json.Encoder().encode
_text = msgspec.json.Decoder(str).decode


def holds_events(headers: Mapping[str, str]) -> bool:
    """Return whether the request is in structured or batch mode: the body is one event, or an array of events."""
    media_type = headers.get(CONTENT_TYPE)
    return media_type is not None and media_type[: len(_EVENTS)].lower() == _EVENTS


def is_in_headers(headers: Mapping[str, str]) -> bool:
    """Return whether the request is in binary mode: the attributes of its event are in the headers."""
    return (_CE_VERSION in headers or _CE_ID in headers) and not holds_events(headers)


def event_of(headers: Mapping[str, str], body: bytes) -> bytes | None:
    """Return the event of a request in binary mode as one JSON object. None if the headers have no event, or if the
    body contains the event too: then the media type decides (3.1).

    Values of headers are percent-decoded (3.1.3.2). The body must be JSON, which is not checked here.
    """
    if not is_in_headers(headers):
        return None
    attributes = {
        name: clean(unquote(value)) for name in _ATTRIBUTES if (value := headers.get(_PREFIX + name)) is not None
    }
    return _encode(attributes)[:-1] + b',"data":' + (body.strip() or b"null") + b"}"


def call_in(element: Element) -> bytes | None:
    """Return the call in LiteLLM's own form that is the data of an event; None if the data is something else.

    The call is metered like the same call on any other route: its kind, status and identity are used. The event's
    subject is its customer, unless the call names a customer.
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
    """Return the data as JSON: an object, an object in a string, or one in base64; `b""` for anything else."""
    try:
        if (encoded := event.get("data_base64")) is not None and bytes(event.get("data", b"null")) == b"null":
            return b64decode(_text(encoded), validate=True).strip()
        data = bytes(event.get("data", b"")).strip()
        return _text(data).encode().strip() if data[:1] == b'"' else data
    except (*UNDECODABLE, ValueError):
        return b""
