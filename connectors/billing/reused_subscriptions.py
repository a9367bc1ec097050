"""One subscription id, used by one customer after another; pure.

Lago lets an external id be used again once its subscription has ended, by another customer too, and has at most one that
runs (docs/lago-behaviour.md, 5.2). It bills an event to whoever has the id at the event's moment. So a life that
begins says that the one before it, under the same id, has ended: whatever that one's org's record shows.
"""

from collections.abc import Iterable

import msgspec

from schemas.customers import OrgRecord
from streams.core.mapping.billing_periods import covers

copy = msgspec.structs.replace


def ended_by(org: OrgRecord, other: OrgRecord) -> OrgRecord:
    """The org, whose lives end at the latest where a life of another org begins under the same id; itself where they do.

    When exactly they ended Lago tells, and it is asked soon (`connectors.billing.org_sync`); never later than so.
    """
    if org.org_id == other.org_id:
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
    """The org, whose lives end where a life of any other begins under the same id."""
    names = {one.external_id for one in org.periods}
    for other in others:
        if any(one.external_id in names for one in other.periods):
            org = ended_by(org, other)
    return org


def overtaken(org: OrgRecord, others: Iterable[OrgRecord]) -> list[str]:
    """The others that have a life which ended at the latest where one of the org's begins, and do not show it."""
    names = {one.external_id for one in org.periods}
    shared = (other for other in others if any(one.external_id in names for one in other.periods))
    return [other.org_id for other in shared if ended_by(other, org) is not other]


def held_by_others(names: Iterable[str], org_id: str, orgs: Iterable[OrgRecord], now_us: int) -> set[str]:
    """Of subscriptions that are said to be the org's those that run as another's, as far as the records tell."""
    wanted = set(names)
    others = (one for org in orgs if org.org_id != org_id for one in org.periods)
    return {one.external_id for one in others if one.external_id in wanted and covers(one, now_us)}
