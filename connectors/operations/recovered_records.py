"""Makes the records of lost topics from their rows in Postgres."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from connectors.operations.sender import Outgoing
from connectors.operations.stored_records import customer_of, org_of
from connectors.postgres.recover import Stored
from schemas.decoding import decoder
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
from streams.state.step_writes import MANIFEST

#: The header of each record that `meterbridge recover` writes.
RECOVERED: Final = "recovered"
_MARK: Final = (RECOVERED, b"1")
_FAILED: Final = "failed"
_encode = msgspec.json.Encoder().encode
_event = decoder(LagoEvent)
_rate = decoder(RateCard)


def states_of(topics: TopicNames, stored: Stored) -> Iterator[Outgoing]:
    """Yield records for the customers, orgs and rates topics: the latest one of each key."""
    for row in stored.customers:
        customer = customer_of(row)
        yield Outgoing(topics.customers, customer.litellm_customer_id.encode(), _encode(customer), headers=(_MARK,))
    for row in stored.orgs:
        org = org_of(row)
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
    """Yield ids and records of the dead letters. They say whether Lago may have the event if Postgres knows it."""
    for row in rows:
        if row["status"] == _FAILED:
            why = row["reason"].encode()
            own = ((REASON, why), (FIRST_ERROR, why), (LAST_ERROR, why), (ATTEMPTS, b"%d" % row["attempts"]))
            fact = () if row["maybe_sent"] is None else ((MAYBE_SENT, b"%d" % row["maybe_sent"]),)
            yield _of_event(topics.dlq, deployment, row, (*own, *fact))


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
