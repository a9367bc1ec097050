"""What waited over a border is judged again before it is posted: Lago would take it, and never bill it.

The event keeps its transaction id; only `timestamp` changes, and `usage_end` says when the usage ended. What is made of
an event depends on the billing period that runs and on nothing else, so every post within it is the same bytes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from schemas.customers import OrgRecord
from schemas.errors import Rejected
from schemas.moments import lago_timestamp, parse_us, to_iso
from schemas.policy import LatePolicy
from schemas.records import LagoEvent
from streams.core.billing_periods import billed
from streams.core.mapping import held_for

#: Why an event is given up: with LATE_POLICY=hold its billing period was invoiced before it could be posted.
INVOICED_PERIOD = "invoiced_period"
#: The property of a moved event that says when its usage ended.
USAGE_END = "usage_end"

_decode = msgspec.json.Decoder(LagoEvent).decode
_encode = msgspec.json.Encoder().encode


class Judged(NamedTuple):
    """What is posted for an event: `value`.

    Fields:
        timestamp: the one in `value`, where it is not the event's own.
        refused: it is not to be posted at all, and this is why.
    """

    value: bytes
    timestamp: str = ""
    refused: str = ""


#: What is posted for the bytes of an event now.
Judge = Callable[[bytes], Judged]


def judged(value: bytes, orgs: Mapping[str, OrgRecord], late: LatePolicy, now_us: int) -> Judged:
    """The event as Lago bills it when it is posted at `now_us`.

    One whose org or subscription is not known is posted as it is.
    """
    try:
        event = _decode(value)
        at_us = parse_us(event.timestamp)
    except (msgspec.DecodeError, Rejected):
        return Judged(value)
    org = orgs.get(event.properties.get("org_id", ""))
    if org is None:
        return Judged(value)
    found = billed(org.periods, event.external_subscription_id, at_us, now_us, event.code)
    timestamp = lago_timestamp(found.at_us)
    if not found.held and timestamp == event.timestamp:
        return Judged(value)
    if held_for(found, at_us, late):
        return Judged(value, refused=found.held or INVOICED_PERIOD)
    properties = event.properties if USAGE_END in event.properties else {**event.properties, USAGE_END: to_iso(at_us)}
    return Judged(_encode(msgspec.structs.replace(event, timestamp=timestamp, properties=properties)), timestamp)


def same_but_moved(stored: LagoEvent, value: bytes) -> bool:
    """Whether Lago's event is the one in `value`, moved to another moment by an earlier post."""
    if USAGE_END not in stored.properties:
        return False
    try:
        event = _decode(value)
        ended = event.properties.get(USAGE_END) or to_iso(parse_us(event.timestamp))
    except (msgspec.DecodeError, Rejected):
        return False
    return (
        (stored.code, stored.external_subscription_id) == (event.code, event.external_subscription_id)
        and stored.properties == {**event.properties, USAGE_END: ended}
        and stored.timestamp != event.timestamp
    )
