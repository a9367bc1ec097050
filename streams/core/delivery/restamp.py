"""Recomputes timestamp and subscription of an event that waited until after the end of its billing period.

With the old values Lago would accept the event and never bill it. The event keeps its transaction id. `timestamp`
changes, and `usage_end` holds the end of the usage. If its subscription has ended meanwhile, or has changed to a plan in
another currency, the event goes to the org's next one. The result depends on the org's record and on the current billing period, so all posts within that
period have the same bytes.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from schemas.customers import OrgRecord
from schemas.decoding import decoder
from schemas.errors import Rejected
from schemas.moments import lago_timestamp, parse_us, to_iso
from schemas.organizations import DEFAULT
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.mapping.billing_periods import billed
from streams.core.mapping.held_reasons import ENDED, WRONG_CURRENCY
from streams.core.mapping.resolve import CURRENCY
from streams.core.mapping.subscription_choice import chosen

#: Why an event becomes a dead letter: with OUT_OF_PERIOD_POLICY=hold its billing period was invoiced before it could be posted.
INVOICED_PERIOD = "invoiced_period"
#: Why an event becomes a dead letter: its org is in another Lago organisation than its manifest says.
OTHER_ORGANIZATION = "other_organization"
#: The property of a moved event that holds the end of its usage.
USAGE_END = "usage_end"

_decode = decoder(LagoEvent)
_encode = msgspec.json.Encoder().encode


class RestampDecision(NamedTuple):
    """The decision about a post; `value`: the bytes to post.

    Fields:
        timestamp: the timestamp in `value` if it differs from the event's own; otherwise `""`.
        subscription: the subscription in `value` if it differs from the event's own; otherwise `""`.
        refused: why the event must not be posted; `""` = it is posted.
    """

    value: bytes
    timestamp: str = ""
    subscription: str = ""
    refused: str = ""


#: Decides what to post now for the bytes of an event.
Judge = Callable[[bytes], RestampDecision]


def restamp_decision(
    value: bytes,
    orgs: Mapping[str, OrgRecord],
    late: OutOfPeriodPolicy,
    now_us: int,
    event_code: str = "",
    organization: str = DEFAULT,
) -> RestampDecision:
    """Return the event in the form in which Lago bills it if it is posted at `now_us`.

    An event with an unknown org or subscription is posted unchanged.

    Args:
        value: the event's JSON.
        now_us: microseconds since 1970 UTC.
        event_code: code of events of calls. Other events have no amount.
        organization: the Lago organisation to which it would be posted.
    """
    try:
        event = _decode(value)
        at_us = parse_us(event.timestamp)
    except (msgspec.DecodeError, Rejected):
        return RestampDecision(value)
    org = orgs.get(event.properties.get("org_id", ""))
    if org is None:
        return RestampDecision(value)
    if org.organization != organization:  # a worker of a release without organisations has sealed it
        return RestampDecision(value, refused=OTHER_ORGANIZATION)
    subscription = event.external_subscription_id
    code, owed = event.code, is_owed(event, event_code)
    choice = billed(org.periods, subscription, at_us, now_us, code, owed=owed)
    may_move = choice.held in (ENDED, WRONG_CURRENCY) and not (owed and in_other_currency(org))
    if may_move and (next_one := chosen(org, at_us, code, now_us, owed=owed)).subscription:
        subscription = next_one.subscription
        choice = billed(org.periods, subscription, at_us, now_us, code, owed=owed)
    timestamp = lago_timestamp(choice.at_us)
    moved = timestamp != event.timestamp, subscription != event.external_subscription_id
    if choice.held or (any(moved) and late is OutOfPeriodPolicy.HOLD):
        return RestampDecision(value, refused=choice.held or INVOICED_PERIOD)
    if not any(moved):
        return RestampDecision(value)
    properties = event.properties if USAGE_END in event.properties else {**event.properties, USAGE_END: to_iso(at_us)}
    posted = msgspec.structs.replace(
        event, timestamp=timestamp, external_subscription_id=subscription, properties=properties
    )
    return RestampDecision(_encode(posted), timestamp if moved[0] else "", subscription if moved[1] else "")


def is_owed(event: LagoEvent, event_code: str) -> bool:
    """Return whether the event has an amount: it bills calls, under the current or an earlier `LAGO_EVENT_CODE`."""
    return event.code == event_code or Decimal(event.precise_total_amount_cents or 0) != 0


def in_other_currency(org: OrgRecord) -> bool:
    """Return whether the org's currency has changed, so that its subscriptions would count our cents in another
    currency.
    """
    return bool(org.currency) and org.currency != CURRENCY


def moved_from(stored: LagoEvent, value: bytes) -> RestampDecision | None:
    """Return how an earlier post changed the event in `value` into Lago's event; None if it did not, or Lago's is
    another event.
    """
    if USAGE_END not in stored.properties:
        return None
    try:
        event = _decode(value)
        ended = event.properties.get(USAGE_END) or to_iso(parse_us(event.timestamp))
    except (msgspec.DecodeError, Rejected):
        return None
    if stored.code != event.code or stored.properties != {**event.properties, USAGE_END: ended}:
        return None
    timestamp = "" if stored.timestamp == event.timestamp else stored.timestamp
    own = event.external_subscription_id
    subscription = "" if stored.external_subscription_id == own else stored.external_subscription_id
    return RestampDecision(value, timestamp, subscription) if timestamp or subscription else None
