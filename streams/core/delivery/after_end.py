"""Finds events that were posted to a subscription with a moment after its end, and makes the events that replace them;
pure.

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
#: The suffix that makes the replacement's transaction id out of the first one.
AGAIN = "-again"
_FOR_EVER = MAX_US - 1


class Gap(NamedTuple):
    """Time after a life of a subscription id in which no life of it runs: `[begins_us, ends_us)`.

    Fields:
        customer: another customer whose life of the same id covers this time: Lago puts its events on that customer's
            invoice. `""` = none does, so they are on no invoice.
    """

    subscription: str
    begins_us: int
    ends_us: int
    customer: str = ""


def gaps(periods: Iterable[Period], since_us: int) -> list[Gap]:
    """The gaps after ends at or after `since_us`: no invoice counts an event with a moment in one of them.

    Lago gives an end to the second, so a life lasts until the next second. One external id can have several lives;
    there is no gap while one of them runs. There is none before the first life either, because usage from there is
    moved to its start.
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
    """The gaps, cut where other customers have lives of the same ids: Lago bills an event to the customer of that time.

    Args:
        lives: of other customers, each with its customer.
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
    """The event that bills the usage of `event`; None where no subscription of the org does, or its currency is
    another.

    The new event's id follows from the old one's, so Lago, which refuses a repeated id, never bills it twice. The new
    event can itself be lost to an end; then another one replaces it.

    Args:
        event: as it was sealed, whatever moment and subscription it was posted with.
        code: of events of calls; others have no amount, so nothing is owed for them.
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
