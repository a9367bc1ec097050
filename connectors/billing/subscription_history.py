"""Updates the periods in an org's record from the subscriptions that Lago lists; pure."""

from collections.abc import Iterable, Sequence

import msgspec

from connectors.billing.plan_terms import kept
from connectors.lago.responses import Customer, Subscription
from connectors.lago.transport import read
from schemas.customers import OrgRecord, Period
from schemas.moments import SECOND_US, parse_us

copy = msgspec.structs.replace


def org_with(org: OrgRecord, customer: Customer | None, listed: Sequence[Period], now_us: int) -> OrgRecord:
    """Return the org's record, updated with Lago's subscriptions; `org` itself if nothing has changed.

    A subscription that is active in the record and not listed has ended. Its end is the start of the next one with the
    same external id (as at a change of plan), otherwise now, the latest possible moment. An end that is too late sends
    usage to a subscription that does not bill it, so the list should also have the ended subscriptions.

    Args:
        listed: the org's subscriptions in Lago, not empty.
        now_us: microseconds since 1970 UTC.
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
                subscription.started_at
                for subscription in listed
                if subscription.external_id == period.external_id and subscription.started_at > period.started_at
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
    """Return whether a period that is active in the record is missing among Lago's active ones. Raises:
    LagoIntegrationError.
    """
    lives = {
        (subscription.external_id, read(parse_us, subscription.started_at))
        for subscription in active
        if subscription.started_at is not None
    }
    running = (period for period in known if period.terminated_at is None and period.started_at <= now_us)
    return any((one.external_id, one.started_at) not in lives for one in running)


def to_the_moment(listed: Sequence[Period]) -> list[Period]:
    """Return the periods with corrected ends. Lago truncates an end to the second, and a beginning to the millisecond.

    If another period with the same id began within that second, its beginning is the end. Otherwise the last fraction
    of a second is not in the period. Its usage is held, because Lago may not bill it.
    """
    periods = []
    for period in listed:
        ended = period.terminated_at
        if ended is not None:
            successors = (
                subscription.started_at
                for subscription in listed
                if subscription.external_id == period.external_id
                and subscription.started_at > period.started_at
                and ended <= subscription.started_at < ended + SECOND_US
            )
            ended = max(period.started_at, min(successors, default=ended))
        periods.append(copy(period, terminated_at=ended))
    return periods
