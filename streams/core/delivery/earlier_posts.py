"""Whether an earlier post of an event may have gone to another subscription or moment than a post would now; pure.

The org's record and the time decide what is posted (streams/core/delivery/restamp.py). While the record stays the same,
an event that is posted unchanged now was posted unchanged before. So Lago must be asked for an earlier post only if the
record changed after the usage, or if another clock may have been past the end of a period already. Lago identifies
an event by its id and its subscription: on another subscription it would bill it twice (docs/lago-behaviour.md, 2;
docs/adr/0020).
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

#: How far the clock of the usage may run ahead, microseconds: no event is sealed earlier than this before its moment.
AHEAD_US = 24 * HOUR_US
#: How far apart the clocks of two processes may be, and how old a view of a record may be, microseconds.
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
    """Whether an earlier post of the event may have had another moment or another subscription.

    Args:
        value, orgs, late, now_us, event_code, organization: as for `restamp_decision`.
    """
    try:
        event = _decode(value)
        at_us = parse_us(event.timestamp)
    except (msgspec.DecodeError, Rejected):
        return False
    org = orgs.get(event.properties.get("org_id", ""))
    if org is None:  # records of orgs are never deleted, so there was none
        return False
    if org.updated_at > at_us - AHEAD_US:
        return True
    return restamp_decision(value, orgs, late, now_us + APART_US, event_code, organization) != RestampDecision(value)
