"""Whether an earlier post of an event may have gone elsewhere than it goes now; pure.

What is posted of an event is judged by the org's record and by the time (streams/core/delivery/restamp.py). While the record stays
as it is, time only ever moves an event on: one that stays as it is now was posted as it is at any time before. So
only a record that changed since the usage, and a border that another clock may have passed already, leave a doubt.
Lago knows an event by its id and its subscription alone: on another subscription it would be billed twice
(docs/lago-behaviour.md, 2; docs/adr/0020).
"""

from collections.abc import Mapping

import msgspec

from schemas.customers import OrgRecord
from schemas.decoding import decoder
from schemas.errors import Rejected
from schemas.moments import HOUR_US, parse_us
from schemas.policy import LatePolicy
from schemas.records import LagoEvent
from streams.core.delivery.restamp import RestampDecision, judged

#: So far the clock of the usage may run ahead, microseconds: an event is never sealed earlier than this before its moment.
AHEAD_US = 24 * HOUR_US
#: How far the clocks of two processes may lie apart, and how old the view of a record may be, microseconds.
APART_US = HOUR_US // 6

_decode = decoder(LagoEvent)


def went_elsewhere(
    value: bytes, orgs: Mapping[str, OrgRecord], late: LatePolicy, now_us: int, event_code: str = ""
) -> bool:
    """Whether an event that may have been posted may have been posted with another moment or on another subscription.

    Args:
        value, orgs, late, now_us, event_code: as for `judged`.
    """
    try:
        event = _decode(value)
        at_us = parse_us(event.timestamp)
    except (msgspec.DecodeError, Rejected):
        return False
    org = orgs.get(event.properties.get("org_id", ""))
    if org is None:  # no record of an org is ever taken away, so there was none
        return False
    if org.updated_at > at_us - AHEAD_US:
        return True
    return judged(value, orgs, late, now_us + APART_US, event_code) != RestampDecision(value)
