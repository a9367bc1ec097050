"""Asks Lago for events that Postgres does not know: the projector was some steps behind when the topics were lost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.events import MOVED, TOO_MANY, StoredEvent
from connectors.postgres.recover import known_events
from schemas.errors import Rejected
from schemas.organizations import DEFAULT
from schemas.records import LagoEvent

#: Events of one subscription in its running billing period that are read, and how often a list is read that changes meanwhile.
_MOST: Final = 1_000_000
_READINGS: Final = 5
_BATCH: Final = 1_000
_periods = msgspec.json.Decoder(list[dict[str, Any]]).decode


async def only_at_lago(
    url: str,
    lagos: Mapping[str, LagoClient],
    orgs: Sequence[Mapping[str, Any]],
    unsent: Iterable[str],
    deployment: str,
    code: str,
) -> list[LagoEvent]:
    """The events of this deployment that Lago has and Postgres does not, in the order of their ids.

    Lago is asked for each part that no event is known of, and for the list of each running billing period.

    Args:
        url: of Postgres.
        lagos: the client of each Lago organisation by its name.
        orgs: rows of `organisations`.
        unsent: see `connectors.postgres.recover.unsent_parts`.
        deployment: its name, the first part of the ids of its events.
        code: of its metric, `LAGO_EVENT_CODE`.

    Raises:
        Rejected: `unknown_organization`; `too_many_events`. LagoIntegrationError, Unavailable: Lago or Postgres is away.
    """
    found: dict[str, LagoEvent] = {}
    for lago in lagos.values():
        for part in unsent:
            if part not in found and (event := await lago.get_event(part)) is not None:
                found[part] = event
    for org in orgs:
        lago = _client(lagos, org["organization"] or DEFAULT)
        for subscription in {period["external_id"] for period in _periods(org["periods"])}:
            listed = [
                name
                for name in await _listed(lago, org["org_id"], subscription, code)
                if name.startswith(f"{deployment}-") and name not in found
            ]
            for start in range(0, len(listed), _BATCH):
                names = listed[start : start + _BATCH]
                for name in set(names) - await known_events(url, names):
                    if (event := await lago.get_event(name)) is not None:
                        found[name] = event
    return [found[name] for name in sorted(found)]


def _client(lagos: Mapping[str, LagoClient], organization: str) -> LagoClient:
    if organization not in lagos:
        raise Rejected("unknown_organization", f"the Lago organisation {organization} has orgs and is not configured")
    return lagos[organization]


async def _listed(lago: LagoClient, org_id: str, subscription: str, code: str) -> list[str]:
    """Ids of the events in the running billing period; none where the subscription does not run.

    Raises:
        Rejected: `too_many_events`. LagoUnavailable: the list changed at each reading: some of it was not read.
    """
    try:
        usage = await lago.current_usage(org_id, subscription, code)
    except LagoRejected as refused:
        if refused.status == 404:
            return []
        raise
    if usage is None:
        return []
    names: set[str] = set()

    def take(event: StoredEvent) -> None:
        names.add(event.transaction_id)

    for _ in range(_READINGS):
        verdict = await lago.read_events_of(subscription, code, usage.from_us, usage.until_us, _MOST, take)
        if verdict == TOO_MANY:
            raise Rejected(
                "too_many_events", f"subscription {subscription} has more than {_MOST} events in this period"
            )
        if verdict != MOVED:
            return sorted(names)
    raise LagoUnavailable(
        "bad_answer", f"events of {subscription}: the list changed between its pages, {_READINGS} times"
    )
