"""Handles an external subscription id that one customer uses after another; pure.

After the end of a subscription, Lago accepts its external id again, even for another customer. At most one subscription
with an id is active (docs/lago-behaviour.md, 5.2). Lago bills an event to the one that is active at the event's
timestamp. So when a subscription (a *life* of the id) begins, the previous life has ended, even if its org's record
does not show it.
"""

from collections.abc import Iterable

import msgspec

from schemas.customers import OrgRecord
from streams.core.mapping.billing_periods import runs_at

copy = msgspec.structs.replace


def ended_by(org: OrgRecord, other: OrgRecord) -> OrgRecord:
    """Return the org's record with changed ends: each life ends, at the latest, when a life of `other` begins with the
    same id.

    Two Lago organisations do not share ids. The exact end comes from Lago soon after (`connectors.billing.org_sync`)
    and is never later. If nothing has changed, the result is `org` itself.
    """
    if org.org_id == other.org_id or org.organization != other.organization:
        return org
    began: dict[str, list[int]] = {}
    for one in other.periods:
        began.setdefault(one.external_id, []).append(one.started_at)
    periods = []
    for one in org.periods:
        later = [at_us for at_us in began.get(one.external_id, ()) if at_us > one.started_at]
        ends_us = min(later, default=None)
        late = ends_us is not None and (one.terminated_at is None or one.terminated_at > ends_us)
        periods.append(copy(one, terminated_at=ends_us) if late else one)
    ended = tuple(periods)
    return org if ended == org.periods else copy(org, periods=ended)


def ended_by_all(org: OrgRecord, others: Iterable[OrgRecord]) -> OrgRecord:
    """Apply `ended_by` for all other orgs."""
    names = {period.external_id for period in org.periods}
    for other in others:
        if any(period.external_id in names for period in other.periods):
            org = ended_by(org, other)
    return org


def orgs_left_behind(org: OrgRecord, others: Iterable[OrgRecord]) -> list[str]:
    """Return the ids of the other orgs whose records do not show yet that a life ended because one of `org` began."""
    names = {period.external_id for period in org.periods}
    shared = (other for other in others if any(period.external_id in names for period in other.periods))
    return [other.org_id for other in shared if ended_by(other, org) is not other]


def held_by_others(
    names: Iterable[str], org_id: str, orgs: Iterable[OrgRecord], now_us: int, organization: str = ""
) -> set[str]:
    """Return those of `names` that the records show as active subscriptions of other orgs in the Lago organisation of
    `org_id`.
    """
    ids = set(names)
    others = (
        period for org in orgs if org.org_id != org_id and org.organization == organization for period in org.periods
    )
    return {other.external_id for other in others if other.external_id in ids and runs_at(other, now_us)}
