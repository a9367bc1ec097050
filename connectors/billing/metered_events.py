"""Usage that others measured: an event's code and free properties, on its way to the raw topic.

It never goes straight to Lago: behind the topic it is deduplicated by its transaction id and sent exactly once.
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

#: A value of a property before it is text; None leaves the property out.
Value = str | int | float | Decimal | bool | None
#: When something happened: seconds, milliseconds or ISO 8601, or a moment with its zone.
Moment = datetime | float | int | str
MAX_ID_BYTES = 255
#: Names and values of an event's properties together, UTF-8; an event that is held stays in memory.
MAX_PROPERTIES_BYTES = 4096


class MeteredEvent(msgspec.Struct, frozen=True):
    """One event of an org.

    Fields:
        transaction_id: two with the same one are one.
        code: of the billable metric.
        at_us: when it happened, microseconds since 1970 UTC.
        properties: text to text, numbers as plain digits: Lago skips `1e-05` without a word.
        actor: who recorded it, as the audit log names them; `""` = a process with the environment's own rights.
    """

    org_id: str
    transaction_id: str
    code: str
    at_us: int
    properties: dict[str, str]
    actor: str = ""


class UsageSink(Protocol):
    """What takes events: durable on return."""

    async def record(self, event: MeteredEvent) -> None:
        """Raises: Unavailable: not now; the same event again is safe."""


class InMemoryUsage:
    """For tests: each event once, by its transaction id; gone with the process."""

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
    """The event, with `org_id` among its properties; without a timestamp it happened now.

    Raises:
        Rejected: `bad_event`, `bad_property`, `bad_time`, `number_out_of_range` (see `check_numbers`).
    """
    for what in (org_id, code, transaction_id):
        if not what.strip() or len(what.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES or what != _clean(what):
            raise Rejected("bad_event", f"an id and a code have 1 to {MAX_ID_BYTES} bytes of UTF-8, none of them 0")
    if not is_normalized("NFC", org_id):
        # Kafka's key is the normalised id, the org's record has the one that Lago knows: they would never meet.
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
    """Judged before its digits are written: they may be a billion."""
    if abs(number.adjusted()) > MAX_DIGITS and number:
        raise Rejected(OUT_OF_RANGE, f"{name} is larger or smaller than Lago can hold")
    return number or ZERO


def _clean(text: str) -> str:
    """Without NUL, which Postgres does not take, and with U+FFFD for halves of characters, which UTF-8 cannot say."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
