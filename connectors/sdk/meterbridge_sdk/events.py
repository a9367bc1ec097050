"""A usage event: what a service measured, in the form in which it is sent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Final

from meterbridge_sdk.errors import BillingRejected
from meterbridge_sdk.wire import MAX_DIGITS, MAX_ID_BYTES, MAX_PROPERTIES_BYTES

#: Value of a property. A property that is None is left out.
Value = str | int | float | Decimal | bool | None
#: How a text begins that Meterbridge may read as a moment: a date, or a number.
_MOMENT: Final = re.compile(r"\s*(?:\d{4}-?\d{2}-?\d{2}|\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?\s*$)", re.ASCII)
#: Seconds or milliseconds since 1970, an ISO 8601 text, or a `datetime` with a time zone.
Timestamp = datetime | float | int | str


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One usage event of an org.

    Fields:
        org_id: the org, which is Lago's customer.
        transaction_id: the event's id; Meterbridge bills two events of an org with the same id once.
        event_code: code of the billable metric.
        timestamp: when it happened, as it is sent.
        properties: text to text; numbers are plain digits without an exponent.
        warning: what Meterbridge has said about the recorded event, for example that no plan of the org charges its
            metric; `""` = nothing.
    """

    org_id: str
    transaction_id: str
    event_code: str
    timestamp: str | int | float
    properties: Mapping[str, str]
    warning: str = ""


def usage_event(
    org_id: str,
    event_code: str,
    transaction_id: str,
    properties: Mapping[str, Value] | None,
    timestamp: Timestamp | None,
    now_s: float,
) -> UsageEvent:
    """Make an event that can be sent. Meterbridge checks the rest: the characters of ids, the numbers, the moment.

    Args:
        org_id, event_code, transaction_id: 1 to 255 bytes of UTF-8 each.
        properties: names and values have at most 4096 bytes of UTF-8 together; None = none.
        timestamp: when it happened; None = now.
        now_s: the time now, seconds since 1970.

    Raises:
        BillingRejected: `bad_event`, `bad_property`, `bad_time`, `number_out_of_range`.
    """
    for name, text in (("org_id", org_id), ("event_code", event_code), ("transaction_id", transaction_id)):
        if not isinstance(text, str):
            raise BillingRejected("bad_event", f"{name} must be text, and is {type(text).__name__}")
        if not text.strip():
            raise BillingRejected("bad_event", f"{name} is empty")
        if text in {".", ".."} or text != _clean(text) or len(text.encode()) > MAX_ID_BYTES:
            raise BillingRejected(
                "bad_event",
                f"{name} must have 1 to {MAX_ID_BYTES} bytes of UTF-8, none of them 0, and be neither . nor ..",
            )
    if not isinstance(properties, Mapping | None) or not all(isinstance(name, str) for name in properties or ()):
        raise BillingRejected("bad_property", "properties must be a mapping with names of text")
    texts = {_clean(name): _text(name, value) for name, value in (properties or {}).items() if value is not None}
    if sum(len((name + text).encode()) for name, text in texts.items()) > MAX_PROPERTIES_BYTES:
        raise BillingRejected("bad_property", f"names and values have at most {MAX_PROPERTIES_BYTES} bytes together")
    moment = datetime.fromtimestamp(now_s, UTC) if timestamp is None else timestamp
    return UsageEvent(org_id, transaction_id, event_code, _moment(moment), texts)


def _moment(moment: Timestamp) -> str | int | float:
    if not isinstance(moment, datetime):
        if isinstance(moment, str):
            if not _MOMENT.match(moment):
                raise BillingRejected("bad_time", "a timestamp in text is ISO 8601 or seconds since 1970")
        elif isinstance(moment, bool) or not isinstance(moment, int | float) or not isfinite(moment) or moment < 0:
            raise BillingRejected(
                "bad_time", "a timestamp is a datetime, text in ISO 8601, or seconds or milliseconds since 1970"
            )
        return moment
    if moment.tzinfo is None:
        raise BillingRejected("bad_time", "a datetime needs a time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int):
        return _digits(name, Decimal(value))
    if isinstance(value, float) and isfinite(value):
        return _digits(name, Decimal(repr(value)))
    if isinstance(value, Decimal) and value.is_finite():
        return _digits(name, value)
    raise BillingRejected("bad_property", f"{name} is neither a text, a finite number nor a boolean")


def _digits(name: str, number: Decimal) -> str:
    """Return plain digits, `0.00014500` -> `0.000145`: Lago skips a number with an exponent."""
    if not number:
        return "0"
    # This is checked first, because the digits of 1e1000000000 would fill the memory.
    if abs(number.adjusted()) > MAX_DIGITS:
        raise BillingRejected("number_out_of_range", f"{name} is larger or smaller than Lago can hold")
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _clean(text: str) -> str:
    """Return the text without NUL, which Postgres refuses, and with U+FFFD in place of lone surrogates, which UTF-8
    cannot encode.
    """
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
