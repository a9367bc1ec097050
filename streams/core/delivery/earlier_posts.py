"""Decides whether an earlier post of an event may have had another subscription or timestamp than a post now; pure.

The org's record and the time determine the posted values (streams/core/delivery/restamp.py). If the record is the same,
an event that is posted unchanged now was posted unchanged before. So Lago must be asked for an earlier post only in two
cases: the record changed after the usage, or another clock may have passed the end of a period. Lago identifies an
event by its id and its subscription. With another subscription it would bill the event twice (docs/lago-behaviour.md,
2; docs/adr/0020).
"""

from collections.abc import Mapping

import msgspec

from schemas.customers import OrgRecord
from schemas.decoding import decoder
from schemas.errors import Rejected
from schemas.moments import HOUR_US, parse_us
from schemas.organizations import DEFAULT
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.restamp import RestampDecision, restamp_decision

#: How far the clock of the usage may be ahead, microseconds. No event is sealed earlier than this before its timestamp.
AHEAD_US = 24 * HOUR_US
#: The largest difference between the clocks of two processes, and the largest age of a view of a record, microseconds.
APART_US = HOUR_US // 6

_decode = decoder(LagoEvent)


def went_elsewhere(
    value: bytes,
    orgs: Mapping[str, OrgRecord],
    late: OutOfPeriodPolicy,
    now_us: int,
    event_code: str = "",
    organization: str = DEFAULT,
) -> bool:
    """Return whether an earlier post of the event may have had another timestamp or another subscription.

    Args:
        value, orgs, late, now_us, event_code, organization: see `restamp_decision`.
    """
    try:
        event = _decode(value)
        at_us = parse_us(event.timestamp)
    except (msgspec.DecodeError, Rejected):
        return False
    org = orgs.get(event.properties.get("org_id", ""))
    if org is None:  # records of orgs are never deleted, so there was no record
        return False
    if org.updated_at > at_us - AHEAD_US:
        return True
    return restamp_decision(value, orgs, late, now_us + APART_US, event_code, organization) != RestampDecision(value)
