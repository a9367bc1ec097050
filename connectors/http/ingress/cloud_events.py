"""CloudEvents over HTTP (cloudevents.io, HTTP binding 1.0.2): in binary mode the attributes are headers, the body is the data.

In structured and batch mode the whole event is in the body, as any other element.
"""

from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from streams.core.tolerant import clean

#: How the media types of structured and batch mode begin.
_EVENTS = "application/cloudevents"
_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time")
_PREFIX = "ce-"

_encode = msgspec.json.Encoder().encode


def holds_events(headers: Mapping[str, str]) -> bool:
    """Structured or batch mode: the body is one event, or an array of them."""
    return headers.get("Content-Type", "")[: len(_EVENTS)].lower() == _EVENTS


def event_of(headers: Mapping[str, str], body: bytes) -> bytes | None:
    """The event of binary mode as one JSON object; None where the headers tell of none.

    A header's value is percent-encoded (3.1.3.2). What the body holds is not looked at: it has to be JSON.
    """
    if "ce-specversion" not in headers and "ce-id" not in headers:
        return None
    told = {name: clean(unquote(value)) for name in _ATTRIBUTES if (value := headers.get(_PREFIX + name)) is not None}
    return _encode(told)[:-1] + b',"data":' + (body.strip() or b"null") + b"}"
