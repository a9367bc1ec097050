"""Finds events that were posted to a subscription with a timestamp after its end, and makes the events that replace
them; pure.

Lago accepts such an event, and no invoice counts it (docs/lago-behaviour.md, 4.1; docs/adr/0027).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from schemas.customers import OrgRecord, Period
from schemas.moments import MAX_US, SECOND_US, lago_timestamp, parse_us, to_iso
from schemas.records import LagoEvent
from streams.core.delivery.receipt_states import UNBILLABLE
from streams.core.delivery.restamp import USAGE_END, in_other_currency, is_owed
from streams.core.mapping.billing_periods import billed
from streams.core.mapping.subscription_choice import chosen

#: The reason on the receipt of an event that was posted after an end.
UNBILLABLE_ENDED = UNBILLABLE + "ended"
#: The property of a replacement event: the transaction id of the event that it replaces.
INSTEAD_OF = "instead_of"
#: The suffix that is added to the transaction id of the first event, for the id of its replacement.
AGAIN = "-again"
_FOR_EVER = MAX_US - 1


class Gap(NamedTuple):
    """The time `[begins_us, ends_us)` after a life of a subscription id, in which no life of the id is active.

    Fields:
        customer: another customer, whose life of the same id covers this time. Lago puts the events on the invoice of
            that customer. `""` = there is none, so the events are on no invoice.
    """

    subscription: str
    begins_us: int
    ends_us: int
    customer: str = ""


def gaps(periods: Iterable[Period], since_us: int) -> list[Gap]:
    """Return the gaps after ends at or after `since_us`. No invoice counts an event with a timestamp in a gap.

    Lago reports an end to the second, so a life lasts until the next second. An external id can have several lives;
    there is no gap while one of them is active. There is no gap before the first life, because earlier usage is moved
    to its start.
    """
    lives: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for period in periods:
        ends_us = _FOR_EVER if period.terminated_at is None else period.terminated_at + SECOND_US
        lives[period.external_id].append((period.started_at, ends_us))
    ended_gaps = []
    for name, own in lives.items():
        reach_us, *_ = (begins_us for begins_us, _ in sorted(own))
        for begins_us, ends_us in [*sorted(own), (_FOR_EVER, _FOR_EVER)]:
            if reach_us < begins_us and reach_us - SECOND_US >= since_us:
                ended_gaps.append(Gap(name, reach_us, begins_us))
            reach_us = max(reach_us, ends_us)
    return sorted(ended_gaps)


def shared(gaps: Iterable[Gap], lives: Iterable[tuple[str, Period]]) -> list[Gap]:
    """Split the gaps at the lives that other customers have with the same ids, because Lago bills an event to the
    customer of that time.

    Args:
        lives: lives of other customers, each with its customer.
    """
    cut = sorted(gaps)
    for customer, life in lives:
        ends_us = _FOR_EVER if life.terminated_at is None else life.terminated_at + SECOND_US
        pieces = []
        for gap in cut:
            begins = max(gap.begins_us, life.started_at)
            ends = min(gap.ends_us, ends_us)
            if gap.subscription != life.external_id or gap.customer or begins >= ends:
                pieces.append(gap)
                continue
            parts = (
                gap._replace(ends_us=begins),
                gap._replace(begins_us=begins, ends_us=ends, customer=customer),
                gap._replace(begins_us=ends),
            )
            pieces += [part for part in parts if part.begins_us < part.ends_us]
        cut = pieces
    return sorted(cut)


def instead_of(event: LagoEvent, org: OrgRecord | None, now_us: int, code: str) -> LagoEvent | None:
    """Return the event that replaces `event`; None if no subscription of the org can bill it, or the currency differs.

    The new id is derived from the old one, and Lago refuses a repeated id, so the usage is never billed twice. The new
    event may itself come after an end. Then another event replaces it.

    Args:
        event: the event as it was sealed, even if it was posted with another timestamp or subscription.
        code: code of events of calls. Other events have no amount, so nothing is owed for them.
    """
    at_us, owed = parse_us(event.timestamp), is_owed(event, code)
    choice = chosen(org, at_us, event.code, now_us, owed=owed)
    if org is None or choice.held or (owed and in_other_currency(org)):
        return None
    period = billed(org.periods, choice.subscription, at_us, now_us, event.code, owed=owed)
    if period.held:
        return None
    return msgspec.structs.replace(
        event,
        transaction_id=event.transaction_id + AGAIN,
        external_subscription_id=choice.subscription,
        timestamp=lago_timestamp(period.at_us),
        properties={USAGE_END: to_iso(at_us), **event.properties, INSTEAD_OF: event.transaction_id},
    )
