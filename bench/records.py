"""The same calls for every contestant: recorded LiteLLM bodies with other ids, customers, models, costs and moments.

The ingress's own code makes the stored form of a body, once; a record is that text with its values filled in.
"""

import hmac
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from connectors.ingest.raw_record import strip
from connectors.kafka.producer import Record
from schemas.moments import SECOND_US, to_iso
from schemas.wire import FLAT, SLP
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

CUSTOMERS = 500
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1")
#: The time that the calls cover: a few windows of a minute, like a worker that is a little behind.
SPAN_US = 180 * SECOND_US

_FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "litellm"
_RECORDED = {FLAT: "custom_usage_webhook__1.109.1__01.json", SLP: "generic_api__1.109.1__chat-basic.json"}
_BATCH = "generic_api__1.109.1__batch-01.json"
#: One recorded call has a prompt of 240 kB; the others are 12 to 20 kB long.
_USUAL_BYTES = 20_000
_LATENCY_US = 14_631
#: Number of different bodies that are posted in turn.
_BODIES = 256


def customer(number: int) -> str:
    """The customer's id; `0 <= number < CUSTOMERS`."""
    return f"customer-{number}"


def stored(shape: str, count: int, topic: str, until_us: int) -> Iterator[Record]:
    """`count` different calls as records of the raw topic, spread evenly over `SPAN_US` before `until_us`.

    Args:
        shape: `FLAT` or `SLP`.
        until_us: microseconds since 1970 UTC; a record's time is its call's end.
    """
    template, random = _template(shape), Random(shape)
    for number in range(count):
        who = customer(random.randrange(CUSTOMERS))
        end_us = until_us - SPAN_US + number * SPAN_US // count
        values = {
            b"received_at": b"%d" % end_us,
            b"id": b"chatcmpl-%029x" % random.getrandbits(116),
            b"call_id": _uuid(random).encode(),
            b"customer": who.encode(),
            b"model": MODELS[number % len(MODELS)].encode(),
            b"cost": b"0.000%d" % random.randrange(10**16, 10**17),
            b"start": _moment(shape, end_us - _LATENCY_US),
            b"end": _moment(shape, end_us),
        }
        yield topic, who, template % values, end_us // 1000


def flat_bodies() -> list[bytes]:
    """Flat calls as LiteLLM posts them, one a body."""
    call, random = _recorded(_RECORDED[FLAT]), Random(_BODIES)
    bodies = []
    for number in range(_BODIES):
        call["id"] = call["request_id"] = f"chatcmpl-{random.getrandbits(116):029x}"
        call["litellm_call_id"] = _uuid(random)
        call["user"] = call["user_id"] = customer(number)
        bodies.append(json.dumps(call).encode())
    return bodies


def signature(secret: str, body: bytes) -> str:
    """`X-Webhook-Signature` of a body."""
    return "sha256=" + hmac.digest(secret.encode(), body, sha256).hex()


def array_body(elements: int) -> bytes:
    """An array of whole StandardLoggingPayloads, as LiteLLM's `generic_api` callback posts it."""
    recorded = [call for call in _recorded(_BATCH) if len(json.dumps(call)) <= _USUAL_BYTES]
    return json.dumps([recorded[number % len(recorded)] for number in range(elements)]).encode()


def _template(shape: str) -> bytes:
    """The stored form of the recorded call, with a placeholder for each value that differs."""
    call = _recorded(_RECORDED[shape])
    kept = strip(json.dumps(call).encode(), shape, 0, CUSTOMER_ID_FIELDS)
    if kept is None:
        raise LookupError(f"the recorded {shape} call is empty")
    key, text = kept
    text = text.replace(b"%", b"%%").replace(b'"received_at":0', b'"received_at":%(received_at)b')
    places = {
        "id": call["id"],
        "call_id": call["litellm_call_id"],
        "customer": key,
        "model": call["model_group"],
        "cost": str(call["spend"] if shape == FLAT else call["response_cost"]),
        "start": json.dumps(call["startTime"]),
        "end": json.dumps(call["endTime"]),
    }
    for name, recorded in places.items():
        if recorded.encode() not in text:
            raise LookupError(f"the recorded {shape} call has no {name}")
        text = text.replace(recorded.encode(), f"%({name})b".encode())
    return text


def _moment(shape: str, us: int) -> bytes:
    """ISO 8601 for the flat payload, a number of seconds for the other."""
    return f'"{to_iso(us)}"'.encode() if shape == FLAT else b"%d.%06d" % divmod(us, SECOND_US)


def _uuid(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _recorded(name: str) -> Any:
    return json.loads((_FIXTURES / name).read_text())
