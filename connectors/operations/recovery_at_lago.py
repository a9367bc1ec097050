"""Asks Lago for events that Postgres does not know, because the projector may have been behind when the topics were
lost.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.events import MOVED, TOO_MANY
from connectors.lago.responses import StoredEvent
from connectors.postgres.recover import known_events, last_seen
from schemas.errors import Rejected
from schemas.moments import HOUR_US, to_us
from schemas.organizations import DEFAULT
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent
from streams.core.metering.event_owner import belongs_to, deployment_named
from streams.runtime import clock

#: The most events of one list that are read, and how often a list is read again if it changes meanwhile.
_MOST: Final = 1_000_000
_READINGS: Final = 5
_BATCH: Final = 1_000
_SLICE_US: Final = HOUR_US // 6
_periods = msgspec.json.Decoder(list[dict[str, Any]]).decode


async def only_at_lago(
    url: str,
    lagos: Mapping[str, LagoClient],
    orgs: Sequence[Mapping[str, Any]],
    unsent: Iterable[str],
    policy: MeterPolicy,
    closed: Collection[str] = (),
) -> list[LagoEvent]:
    """Find the events of this deployment that Lago has and Postgres does not, in the order of their ids.

    Lago is asked for the event of each part without a known event, and for the list of each running billing period. It
    is also asked for all events of the metric since one hour before the projector's last step. This list covers orgs
    that Postgres does not know yet, subscriptions that have ended, and billing periods that ended in between.

    Args:
        url: URL of Postgres.
        lagos: the client of each Lago organisation by its name.
        orgs: rows of `organisations`.
        unsent: see `connectors.postgres.recover.unsent_parts`.
        policy: has the names of the deployment and the metric, which the ids and the lists of events contain.
        closed: names of organisations that are not asked, because nothing is posted to them.

    Raises:
        Rejected: `unknown_organization`; `too_many_events`. LagoIntegrationError, Unavailable: Lago or Postgres does
            not answer.
    """
    found: dict[str, LagoEvent] = {}
    asked = [(_client(lagos, org["organization"] or DEFAULT), org) for org in orgs if org["organization"] not in closed]
    for lago in lagos.values():
        for part in unsent:
            if part not in found and (event := await lago.get_event(part)) is not None:
                found[part] = event
    own = _Own(policy)
    for lago, org in asked:
        for subscription in sorted({period["external_id"] for period in _periods(org["periods"])}):
            listed = await _running(lago, org["org_id"], subscription, policy.event_code)
            await _take_unknown(url, lago, own, own.of(listed, found), found)
    if (seen := await last_seen(url)) is not None:
        until_us = clock.now_us() + HOUR_US
        for lago in lagos.values():
            # The list is read in slices, because other deployments post meanwhile. Their events change only the newest
            # slice.
            for from_us in range(to_us(seen) - HOUR_US, until_us, _SLICE_US):
                listed = await _listed(lago, None, policy.event_code, from_us, from_us + _SLICE_US)
                await _take_unknown(url, lago, own, own.of(listed, found), found)
    return [found[name] for name in sorted(found)]


class _Own:
    """Recognises the events of this deployment. If each call is an event of its own, its id is the identity of the call,
    without the name of the deployment. Then the event itself names it; an event without the name may be ours.
    """

    def __init__(self, policy: MeterPolicy) -> None:
        self._deployment, self._each_call = policy.deployment, not policy.window_us

    def of(self, names: Iterable[str], found: Collection[str]) -> list[str]:
        """Return the ids that were not found before."""
        return [name for name in names if name not in found and self._may_be(belongs_to(self._deployment, name))]

    def has(self, event: LagoEvent) -> bool:
        """Return whether the event may be ours, by its whole content."""
        return self._may_be(belongs_to(self._deployment, event.transaction_id, deployment_named(event)))

    def _may_be(self, told: bool | None) -> bool:
        return self._each_call if told is None else told


async def _take_unknown(
    url: str, lago: LagoClient, own: _Own, listed: Sequence[str], found: dict[str, LagoEvent]
) -> None:
    for start in range(0, len(listed), _BATCH):
        names = listed[start : start + _BATCH]
        for name in sorted(set(names) - await known_events(url, names)):
            if (event := await lago.get_event(name)) is not None and own.has(event):
                found[name] = event


def _client(lagos: Mapping[str, LagoClient], organization: str) -> LagoClient:
    if organization not in lagos:
        raise Rejected("unknown_organization", f"the Lago organisation {organization} has orgs and is not configured")
    return lagos[organization]


async def _running(lago: LagoClient, org_id: str, subscription: str, code: str) -> list[str]:
    """Return the ids of the events in the running billing period; none if the subscription is not active."""
    try:
        usage = await lago.current_usage(org_id, subscription, code)
    except LagoRejected as refused:
        if refused.status == 404:
            return []
        raise
    return [] if usage is None else await _listed(lago, subscription, code, usage.from_us, usage.until_us)


async def _listed(lago: LagoClient, subscription: str | None, code: str, from_us: int, until_us: int) -> list[str]:
    """Return the ids of the events with a timestamp in `[from, until)`, microseconds since 1970 UTC.

    Args:
        subscription: None = all subscriptions.

    Raises:
        Rejected: `too_many_events`. LagoUnavailable: the list changed during each reading, so events may be missing.
    """
    what = "the metric" if subscription is None else f"subscription {subscription}"
    names: set[str] = set()

    def take(event: StoredEvent) -> None:
        names.add(event.transaction_id)

    for _ in range(_READINGS):
        verdict = await lago.read_events_of(subscription, code, from_us, until_us, _MOST, take)
        if verdict == TOO_MANY:
            raise Rejected("too_many_events", f"{what} has more than {_MOST} events in this period")
        if verdict != MOVED:
            return sorted(names)
    raise LagoUnavailable("bad_answer", f"events of {what}: the list changed between its pages, {_READINGS} times")
