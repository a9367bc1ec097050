"""The lives of an org's subscriptions: what the record shows, brought to what Lago lists; pure."""

from collections.abc import Iterable, Sequence

import msgspec

from connectors.billing.plan_terms import kept
from connectors.lago.response_types import Customer, Subscription
from connectors.lago.transport import read
from schemas.customers import OrgRecord, Period
from schemas.moments import SECOND_US, parse_us

copy = msgspec.structs.replace


def org_with(org: OrgRecord, customer: Customer | None, listed: Sequence[Period], now_us: int) -> OrgRecord:
    """The org with Lago's subscriptions, `listed`; `org` itself where nothing is new.

    A subscription that runs in the record and is not listed has ended: where a new one took over its external id at
    that one's start (as Lago's plan changes do), else now, which is the latest it can have been. So the ones that
    ended are to be listed, too, where Lago has them: an end that is too late lets usage go where nothing bills it.
    """
    new = {(period.external_id, period.started_at): period for period in listed}
    periods = []
    for period in org.periods:
        if (same := new.pop((period.external_id, period.started_at), None)) is not None:
            periods.append(kept(same, period))
        elif period.terminated_at is not None or period.started_at > now_us:
            periods.append(period)
        else:
            successors = [
                one.started_at
                for one in listed
                if one.external_id == period.external_id and one.started_at > period.started_at
            ]
            periods.append(copy(period, terminated_at=min([*successors, now_us])))
    periods = sorted([*periods, *new.values()], key=lambda period: (period.started_at, period.external_id))
    own_name = (customer.name if customer is not None else None) or org.name
    currency = (customer.currency if customer is not None else None) or org.currency
    plan = org.plan or listed[-1].plan_code
    names = {period.external_id for period in periods}
    unusable = {name: why for name, why in org.unusable.items() if name not in names}
    changed = copy(org, name=own_name, plan=plan, currency=currency, periods=tuple(periods), unusable=unusable)
    return org if changed == org else copy(changed, updated_at=now_us)


def not_running(known: Iterable[Period], active: Iterable[Subscription], now_us: int) -> bool:
    """Whether a period that runs by the record is not among Lago's active subscriptions. Raises: LagoIntegrationError."""
    lives = {(one.external_id, read(parse_us, one.started_at)) for one in active if one.started_at is not None}
    running = (one for one in known if one.terminated_at is None and one.started_at <= now_us)
    return any((one.external_id, one.started_at) not in lives for one in running)


def to_the_moment(listed: Sequence[Period]) -> list[Period]:
    """Lago cuts the end of a subscription to the second, and its beginning to the millisecond.

    Where another plan took over under the same id, that one's beginning is the end. Else the last fraction of a
    second stays out of the period: usage in it is held rather than sent where it may not be billed.
    """
    found = []
    for period in listed:
        ended = period.terminated_at
        if ended is not None:
            successors = (
                one.started_at
                for one in listed
                if one.external_id == period.external_id
                and one.started_at > period.started_at
                and ended <= one.started_at < ended + SECOND_US
            )
            ended = max(period.started_at, min(successors, default=ended))
        found.append(copy(period, terminated_at=ended))
    return found
