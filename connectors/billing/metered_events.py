"""Checks and normalises usage events that another service measured, before they go to the raw topic.

They are not sent to Lago directly. The meter deduplicates them by transaction id, and they are delivered exactly once.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Protocol
from unicodedata import is_normalized

import msgspec

from connectors.billing.metered_numbers import MAX_DIGITS, OUT_OF_RANGE, check_numbers
from schemas.customer_id import normalise_customer_id
from schemas.errors import Rejected
from schemas.moments import parse_us, to_us
from schemas.money import ZERO, plain

#: The value of a property before it is converted to text. A property that is None is left out.
Value = str | int | float | Decimal | bool | None
#: A timestamp: seconds or milliseconds since 1970, ISO 8601, or a datetime with a time zone.
Moment = datetime | float | int | str
MAX_ID_BYTES = 255
#: The most bytes of UTF-8 of an event's names and values together. There is a limit because a held event stays in
#: memory.
MAX_PROPERTIES_BYTES = 4096


class MeteredEvent(msgspec.Struct, frozen=True):
    """One event of an org.

    Fields:
        transaction_id: id of the event. Two events of an org with the same id are billed once.
        code: code of the billable metric.
        at_us: time of the usage, microseconds since 1970 UTC.
        properties: text values by name. Numbers are plain digits, because Lago ignores `1e-05` without an error.
        actor: the account that recorded it, as in the audit log; `""` = a process with the rights of the environment.
    """

    org_id: str
    transaction_id: str
    code: str
    at_us: int
    properties: dict[str, str]
    actor: str = ""


class UsageSink(Protocol):
    """Stores events; an event is durable on return."""

    async def record(self, event: MeteredEvent) -> None:
        """Store an event. Raises: Unavailable: it may not be stored; the same event again is safe."""


class InMemoryUsage:
    """A sink for tests: keeps each event once, by its transaction id, in memory."""

    def __init__(self) -> None:
        self.all: dict[str, MeteredEvent] = {}

    async def record(self, event: MeteredEvent) -> None:
        """See `UsageSink`."""
        self.all.setdefault(event.transaction_id, event)


def metered(
    org_id: str,
    code: str,
    transaction_id: str,
    properties: Mapping[str, Value] | None,
    timestamp: Moment | None,
    now_us: int,
) -> MeteredEvent:
    """Make an event, with `org_id` among its properties.

    Args:
        org_id, code, transaction_id: 1 to `MAX_ID_BYTES` bytes of UTF-8 each.
        properties: at most `MAX_PROPERTIES_BYTES` bytes of names and values; None = none.
        timestamp: time of the usage; None = now.
        now_us: current time, microseconds since 1970 UTC.

    Raises:
        Rejected: `bad_event`, `bad_property`, `bad_time`, `number_out_of_range` (see `check_numbers`).
    """
    for what in (org_id, code, transaction_id):
        if not what.strip() or len(what.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES or what != _clean(what):
            raise Rejected("bad_event", f"an id and a code have 1 to {MAX_ID_BYTES} bytes of UTF-8, none of them 0")
    if not is_normalized("NFC", org_id):
        # The Kafka key is the normalised id, and the org's record has Lago's id. If they differed, they would be two
        # orgs.
        raise Rejected("bad_event", "an org's id is in Unicode's normal form C: its accents are part of their letters")
    org_id = normalise_customer_id(org_id) or org_id
    texts = {_clean(name): _text(name, value) for name, value in (properties or {}).items() if value is not None}
    if sum(len((name + text).encode()) for name, text in texts.items()) > MAX_PROPERTIES_BYTES:
        raise Rejected("bad_property", f"names and values have at most {MAX_PROPERTIES_BYTES} bytes together")
    check_numbers(texts)
    at_us = now_us if timestamp is None else _us(timestamp)
    return MeteredEvent(org_id, transaction_id, code, at_us, {**texts, "org_id": org_id})


def _us(moment: Moment) -> int:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise Rejected("bad_time", "a moment without a zone")
        return to_us(moment)
    return parse_us(moment)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int):
        return plain(_writable(name, Decimal(value)))
    if isinstance(value, float) and isfinite(value):
        return plain(_writable(name, Decimal(repr(value))))
    if isinstance(value, Decimal) and value.is_finite():
        return plain(_writable(name, value))
    raise Rejected("bad_property", f"{name} is neither text, a finite number nor a truth value")


def _writable(name: str, number: Decimal) -> Decimal:
    """Check the number before it is formatted, because it may have a billion digits."""
    if abs(number.adjusted()) > MAX_DIGITS and number:
        raise Rejected(OUT_OF_RANGE, f"{name} is larger or smaller than Lago can hold")
    return number or ZERO


def _clean(text: str) -> str:
    """Remove NUL, which Postgres refuses, and replace lone surrogates, which UTF-8 cannot encode, by U+FFFD."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
