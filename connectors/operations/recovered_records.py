"""Makes the records of lost topics from their rows in Postgres."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from connectors.operations.sender import Outgoing
from connectors.postgres.recover import Stored
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.decoding import decoder
from schemas.moments import parse_us, to_us
from schemas.organizations import begins_with
from schemas.rates import RateCard
from schemas.records import LagoEvent, Manifest
from schemas.topics import TopicNames
from streams.core.delivery.dead_letter_headers import (
    ATTEMPT,
    ATTEMPTS,
    FIRST_ERROR,
    LAST_ERROR,
    MAYBE_SENT,
    NOT_BEFORE,
    REASON,
)
from streams.core.mapping.set_mapping import KEPT_VERSIONS
from streams.state.step_writes import MANIFEST

#: The header of each record that `meterbridge recover` writes.
RECOVERED: Final = "recovered"
_MARK: Final = (RECOVERED, b"1")
_FAILED: Final = "failed"
_encode = msgspec.json.Encoder().encode
_event = decoder(LagoEvent)
_rate = decoder(RateCard)
_members = msgspec.json.Decoder(list[dict[str, Any]]).decode


def states_of(topics: TopicNames, stored: Stored) -> Iterator[Outgoing]:
    """Yield records for the customers, orgs and rates topics: the latest one of each key."""
    for row in stored.customers:
        customer = _customer(row)
        yield Outgoing(topics.customers, customer.litellm_customer_id.encode(), _encode(customer), headers=(_MARK,))
    for row in stored.orgs:
        org = _org(row)
        yield Outgoing(topics.orgs, org.org_id.encode(), _encode(org), headers=(_MARK,))
    for text in stored.rates:
        card = _rate(text.encode())
        yield Outgoing(topics.rates, card.id.encode(), _encode(card), headers=(_MARK,))


def retries_of(
    topics: TopicNames, deployment: str, rows: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, Outgoing]]:
    """Yield ids and records of the events that are not known to be at Lago. Lago may have some of them; it is asked
    first, or refuses the repeat.
    """
    now_ms = time.time_ns() // 1_000_000
    own = ((ATTEMPT, b"0"), (NOT_BEFORE, b"%d" % now_ms), (MAYBE_SENT, b"1"))
    for row in rows:
        if row["status"] != _FAILED:
            yield _of_event(topics.retry, deployment, row, own)


def dead_letters_of(
    topics: TopicNames, deployment: str, rows: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, Outgoing]]:
    """Yield ids and records of the dead letters."""
    for row in rows:
        if row["status"] == _FAILED:
            why = row["reason"].encode()
            own = ((REASON, why), (FIRST_ERROR, why), (LAST_ERROR, why), (ATTEMPTS, b"%d" % row["attempts"]))
            yield _of_event(topics.dlq, deployment, row, own)


def _of_event(
    topic: str, deployment: str, row: Mapping[str, Any], own: tuple[tuple[str, bytes], ...]
) -> tuple[str, Outgoing]:
    event = _event(row["event"].encode())
    headers = (*own, _MARK)
    if row["raw_partition"] is not None:
        manifest = Manifest(
            *(row["raw_partition"], row["first_offset"], row["last_offset"], row["calls"]),
            *(tuple(row["windows"] or ()), deployment, _organization(row)),
        )
        headers = ((MANIFEST, _encode(manifest)), *headers)
    key = event.external_subscription_id.encode()
    return row["part"], Outgoing(topic, key, _encode(event), 0, headers)


def _organization(row: Mapping[str, Any]) -> str:
    """Return the Lago organisation of an event. If its org has no row any more, the key of the org names it."""
    known, org_id = row["organization"], row["org_id"] or ""
    return begins_with(org_id) if known is None else known


def _customer(row: Mapping[str, Any]) -> CustomerRecord:
    versions = tuple(
        msgspec.convert(version | _moments(version, "effective_from", "updated_at"), MappingVersion)
        for version in _members(row["versions"])
    )
    # If a customer has many versions, earlier ones may have been dropped, and the tables do not show it. Then usage
    # before the first version waits for a person, because it could be billed to the wrong org.
    known_from = versions[0].effective_from if len(versions) >= KEPT_VERSIONS else 0
    moments = to_us(row["created_at"]), to_us(row["updated_at"])
    return CustomerRecord(row["litellm_customer_id"], versions, *moments, known_from)


def _org(row: Mapping[str, Any]) -> OrgRecord:
    periods = tuple(
        msgspec.convert(period | _moments(period, "started_at", "terminated_at"), Period)
        for period in _members(row["periods"])
    )
    words = {name: row[name] for name in ("name", "email", "plan", "currency", "status", "subscription_id")}
    return OrgRecord(
        row["org_id"],
        periods=periods,
        updated_at=to_us(row["updated_at"]),
        limits=msgspec.json.decode(row["limits"], type=dict[str, int]),
        organization=row["organization"],
        **words,
    )


def _moments(told: Mapping[str, Any], *names: str) -> dict[str, int | None]:
    return {name: None if told[name] is None else parse_us(told[name]) for name in names}
