"""Reads the bodies of the events endpoints: the fields that Lago reads, checked in Lago's order.

Source: `app/controllers/api/v1/events_controller.rb`, `app/services/events/create_service.rb` and
`create_batch_service.rb`, `app/models/event.rb` of lago-api.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from connectors.lago_sandbox.coercion import InvalidTimestamp, Unstorable, blank, cents, text, timestamp_us
from connectors.lago_sandbox.refusals import crashed, invalid, invalid_field, malformed, missing_root
from connectors.lago_sandbox.stored_event import Event
from schemas.decoding import UNDECODABLE

#: `LAGO_EVENTS_BATCH_MAX_LENGTH` of the server, by default.
MAX_BATCH = 100

_NO_PROPERTIES = msgspec.Raw(b"{}")
_keep_numbers = msgspec.json.Decoder(float_hook=Decimal)
_canonical = msgspec.json.Encoder(decimal_format="number", order="sorted")


class Incoming(msgspec.Struct):
    """One event as sent: exactly the permitted fields, of any type. Other fields are ignored."""

    transaction_id: Any = None
    code: Any = None
    timestamp: Any = None
    external_subscription_id: Any = None
    precise_total_amount_cents: Any = None
    properties: msgspec.Raw = _NO_PROPERTIES


class _Batch(msgspec.Struct):
    events: list[Incoming]


class _Single(msgspec.Struct):
    event: Incoming


_batch = msgspec.json.Decoder(_Batch)
_single = msgspec.json.Decoder(_Single)
_incoming = msgspec.json.Decoder(Incoming)


def read_batch(body: bytes) -> list[Incoming]:
    """Return the elements under `events`; elements that are not objects are dropped.

    Raises:
        SandboxRefusal: 400 when the body is not JSON, 422 `no_events`, 500 when `events` is an object.
    """
    try:
        events = _batch.decode(body).events
    except msgspec.ValidationError:
        events = _objects(_root(body, "events"))
    except UNDECODABLE as error:
        raise malformed() from error
    if not events:
        raise invalid_field("events", "no_events")
    return events


def read_single(body: bytes) -> Incoming:
    """Return the object under `event`.

    Raises:
        SandboxRefusal: 400 when the body is not JSON, or the root key is absent or empty; 500 when it is no object.
    """
    try:
        event = _single.decode(body).event
    except msgspec.ValidationError as error:
        if _root(body, "event"):
            raise crashed() from error
        raise missing_root("event") from error
    except UNDECODABLE as error:
        raise malformed() from error
    if event == Incoming() and not _root(body, "event"):
        raise missing_root("event")
    return event


def attempt(sent: Incoming, now_us: int, unit_us: int) -> Event | InvalidTimestamp | Unstorable:
    """Return the event with every value converted, or the error.

    Args:
        unit_us: precision of the store's timestamps, microseconds.
    """
    try:
        us = timestamp_us(sent.timestamp, now_us)
        amount = cents(sent.precise_total_amount_cents)
    except (InvalidTimestamp, Unstorable) as error:
        return error
    return Event(
        transaction_id=text(sent.transaction_id) or "",
        subscription=text(sent.external_subscription_id),
        code=text(sent.code) or "",
        ts_us=us // unit_us * unit_us,
        cents=amount,
        properties=_properties(sent.properties),
        received_us=now_us,
    )


def checked(attempts: Sequence[Event | InvalidTimestamp | Unstorable]) -> list[Event]:
    """Return the events of a batch, when all of them are valid.

    Raises:
        SandboxRefusal: 422 with the errors by index, or 500.
    """
    events: list[Event] = []
    errors: dict[str, dict[str, list[str]]] = {}
    for index, event in enumerate(attempts):
        if isinstance(event, Unstorable):
            raise crashed() from event
        if isinstance(event, InvalidTimestamp):
            errors[str(index)] = {"timestamp": ["invalid_format"]}
        elif missing := missing_fields(event):
            errors[str(index)] = missing
        else:
            events.append(event)
    if errors:
        raise invalid(errors)
    return events


def missing_fields(event: Event) -> dict[str, list[str]]:
    """Errors for the blank mandatory fields; the subscription is not mandatory."""
    missing = {}
    if blank(event.transaction_id):
        missing["transaction_id"] = ["value_is_mandatory"]
    if blank(event.code):
        missing["code"] = ["value_is_mandatory"]
    return missing


def _properties(sent: msgspec.Raw) -> bytes:
    """Return the properties as a jsonb column keeps them: keys sorted, numbers to the digit; `{}` where they are no
    object.
    """
    properties = _keep_numbers.decode(sent)
    return _canonical.encode(properties) if isinstance(properties, dict) else b"{}"


def _root(body: bytes, key: str) -> object:
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE as error:
        raise malformed() from error
    return document.get(key) if isinstance(document, dict) else None


def _objects(events: object) -> list[Incoming]:
    if isinstance(events, dict) and events:
        raise crashed()
    if not isinstance(events, list):
        return []
    return [_incoming.decode(msgspec.json.encode(event)) for event in events if isinstance(event, dict)]
